"""Several processes of one run: how they connect and agree.

All processes run the same program on arrays that are sharded over the devices of all,
so all must make the same calls in the same order. Where one process would behave
differently, because of a signal or a file that cannot be opened, it tells the others
first. Process 0 writes the run folder; of a checkpoint each process writes its shards.

With a single process the functions return their argument.
"""

import os
import re
import sys
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Made = TypeVar("Made")

_MAX_BYTES = 1024  # of a message; the rest is cut off


@dataclass(frozen=True)
class Cluster:
    """How the processes of a run find each other; names as in `jax.distributed`.

    Attributes:
        coordinator_address: HOST:PORT of process 0, or `auto`: found, as the rest is,
            where JAX knows the launcher (Slurm, Open MPI, TPU). None for no cluster.
        num_processes: Number of processes; None lets JAX find it.
        process_id: Number of this process, from 0; None lets JAX find it.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def join(self) -> None:
        """Connect to the other processes; call it before any other use of JAX.

        Raises:
            ValueError: If something is missing or wrong.
        """
        address = self.coordinator_address
        if address is None:
            self._refuse_without_address()
            check_jax_backend()
            return
        if address != "auto" and not re.fullmatch(r".+:\d+", address):
            raise ValueError(
                f"coordinator_address={address!r} must be HOST:PORT of process 0, such "
                "as 10.0.0.1:1234, or auto"
            )
        # The command handles SIGTERM; this service would swallow it.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                None if address == "auto" else address,
                self.num_processes,
                self.process_id,
            )
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"no cluster to join: {error} Set coordinator_address (HOST:PORT of "
                "process 0), num_processes and process_id (0, 1, ...)"
            ) from error

    def _refuse_without_address(self) -> None:
        for name in ("num_processes", "process_id"):
            value = getattr(self, name)
            if value is not None:
                raise ValueError(
                    f"{name}={value} has no meaning without coordinator_address; set "
                    "it to HOST:PORT of process 0"
                )


def check_jax_backend() -> None:
    """Raise `ValueError` if JAX cannot start on the platform that it is told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms  # type: ignore[attr-defined]
        reason = str(error).strip().split("\n")[0] or "no backend starts"
        raise ValueError(
            f"JAX cannot start with JAX_PLATFORMS={platforms} ({reason}); unset it, or "
            "install JAX for that platform"
        ) from error


def is_first() -> bool:
    """Whether this is process 0, which writes and prints."""
    return jax.process_index() == 0


def first_message(message: str | None) -> str | None:
    """The message of the first process that has one; all processes must call."""
    if jax.process_count() == 1:
        return message
    sent = np.zeros(_MAX_BYTES, np.uint8)
    if message is not None:
        text = np.frombuffer(message.encode()[: _MAX_BYTES - 1], np.uint8)
        sent[0], sent[1 : 1 + len(text)] = 1, text
    for received in multihost_utils.process_allgather(sent):
        if received[0]:
            return bytes(received[1:]).rstrip(b"\0").decode(errors="replace")
    return None


def broadcast_from_process_0(text: str) -> str:
    """The text of process 0, in all processes."""
    return str(first_message(text if is_first() else None))


def run_on_all_or_raise(make: Callable[[], Made]) -> Made:
    """Call `make` in all processes and return its value in this one.

    Raises:
        ValueError: If `make` raises it in any process; then it is raised in all.
    """
    made, problem = None, None
    try:
        made = make()
    except ValueError as error:
        problem = error
    message = first_message(None if problem is None else str(problem))
    if problem is not None:
        raise problem
    if message is not None:
        raise ValueError(f"another process could not start: {message}")
    return made  # pyright: ignore[reportReturnType]


def abort_process(error: BaseException) -> NoReturn:
    """Print the error and end this process of several immediately.

    A normal exit would wait minutes for the other processes, while they wait for a
    computation of this one. Once its connections are closed, they end too.
    """
    # The cause, where the error only adds that it was during training.
    reasons = [_lost_reason(one) for one in (error, error.__cause__)]
    if reason := next(filter(None, reasons), None):
        print(
            f"error: process {jax.process_index()}, or one it needs, failed: {reason}; "
            "continue the run with --resume",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _lost_reason(error: BaseException | None) -> str | None:
    """First line of an error that a lost process or disk causes; None of another."""
    shown = str(error).split("\n")[0]
    # XLA's errors, of whatever type, begin with a status; most mean a lost process.
    is_lost = isinstance(error, OSError) or re.match("[A-Z_]+: ", shown)
    return shown if is_lost else None


def check_same(what: Literal["settings", "checkpoints"], value: Any) -> None:
    """Raise `ValueError` where the `repr` of the value differs from process 0's."""
    digest = f"{zlib.crc32(repr(value).encode()):08x}"
    if broadcast_from_process_0(digest) != digest:
        raise ValueError(
            f"process {jax.process_index()} has other {what} than process 0; give all "
            "processes the same options, but for process_id, and a run folder that all "
            "can reach"
        )


def on_host(array: Any) -> np.ndarray:
    """The whole array in NumPy, also where this process holds only some shards."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))

"""Several processes of one run: how they meet, and what they tell each other.

All of them run the same program on arrays that lie over the devices of all (see
`envs/rollout/sharding.py`), so all must take the same turns: where one would go its own
way, because a signal came or a file could not be opened, it tells the others first. The
run folder is written by process 0, but for checkpoints, of which each writes its
shares.

With a single process the functions return what they are given.
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

_LONGEST = 1024  # bytes of what is said; the rest is cut off


@dataclass(frozen=True)
class Cluster:
    """Where the processes of a run meet; in JAX's words.

    Attributes:
        coordinator_address: HOST:PORT of process 0, or `auto`: found, as the rest is,
            where JAX knows the launcher (Slurm, Open MPI, TPU). None for no cluster.
        num_processes: How many there are; None finds it.
        process_id: Which of them this is, from 0; None finds it.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def join(self) -> None:
        """Meet the others, before JAX is used for anything else.

        Raises:
            ValueError: If something is missing or wrong.
        """
        address = self.coordinator_address
        if address is None:
            self._refuse_without_address()
            return
        if address != "auto" and not re.fullmatch(r".+:\d+", address):
            raise ValueError(
                f"coordinator_address={address!r} must be HOST:PORT of process 0, such "
                "as 10.0.0.1:1234, or auto"
            )
        # SIGTERM is the command's to handle, not to be swallowed by this service.
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


def is_first() -> bool:
    """Whether this is process 0, which writes and prints."""
    return jax.process_index() == 0


def first_message(said: str | None) -> str | None:
    """What the first process said that said anything; all processes must ask."""
    if jax.process_count() == 1:
        return said
    message = np.zeros(_LONGEST, np.uint8)
    if said is not None:
        text = np.frombuffer(said.encode()[: _LONGEST - 1], np.uint8)
        message[0], message[1 : 1 + len(text)] = 1, text
    for heard in multihost_utils.process_allgather(message):
        if heard[0]:
            return bytes(heard[1:]).rstrip(b"\0").decode(errors="replace")
    return None


def broadcast_from_process_0(said: str) -> str:
    """What process 0 says."""
    return str(first_message(said if is_first() else None))


def run_on_all_or_raise(make: Callable[[], Made]) -> Made:
    """What `make` makes in this process.

    Raises:
        ValueError: If `make` does, in any process.
    """
    made, problem = None, None
    try:
        made = make()
    except ValueError as error:
        problem = error
    said = first_message(None if problem is None else str(problem))
    if problem is not None:
        raise problem
    if said is not None:
        raise ValueError(f"another process could not begin: {said}")
    return made  # pyright: ignore[reportReturnType]


def abort_process(error: BaseException) -> NoReturn:
    """End this process, one of several, by an error, and at once.

    An ordinary exit would wait for the others, minutes long, while they wait for what
    this one was to compute. Once its connections are closed they end as well.
    """
    shown = str(error).split("\n")[0]
    # XLA's errors, of whatever type, begin with a status; most mean a lost process.
    if isinstance(error, OSError) or re.match("[A-Z_]+: ", shown):
        print(
            f"error: process {jax.process_index()}, or one it needs, failed: {shown}; "
            "continue the run with --resume",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def check_same(what: Literal["settings", "checkpoints"], value: Any) -> None:
    """Raise `ValueError` where the value's `repr` is not that of process 0."""
    digest = f"{zlib.crc32(repr(value).encode()):08x}"
    if broadcast_from_process_0(digest) != digest:
        raise ValueError(
            f"process {jax.process_index()} has other {what} than process 0; give all "
            "processes the same options, but for process_id, and a run folder that all "
            "can reach"
        )


def on_host(array: Any) -> np.ndarray:
    """The whole array, in NumPy, of which this process may hold a share."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))

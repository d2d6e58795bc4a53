"""Gymnasium simulations distributed over worker processes.

Gymnasium's `AsyncVectorEnv` has one process for each simulation, sends each a message
at each step, and always steps all of them. Here a process has many simulations, a step
needs one message to each process, and simulations that wait are not stepped.
"""

import contextlib
import logging
import socket
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from pes_rl.envs.gymnasium import worker_program
from pes_rl.envs.gymnasium.making import Maker, find_spec
from pes_rl.envs.gymnasium.results import BrokenEnvironment
from pes_rl.envs.rollout.base import EngineLost

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Attempts at a reset; if a worker dies at each of them, that is an error."""


class Workers:
    """A `Vectorization` of `count` simulations in up to `num_workers` processes.

    A worker that dies, killed by the system or crashed by its simulator, is replaced,
    and the event is logged. Its simulations in the middle of an episode, or about to
    take a step, are lost: the reward of their step is NaN, which the engine records as
    a divergence. Those that wait at the start of an episode start it again from its
    seed. If workers die repeatedly, `reset` and `step` raise `EngineLost`.

    Raises:
        ValueError: If an environment cannot be made in a worker.
        BrokenEnvironment: By `reset` and `step`, as by those of `Simulations`.
    """

    idle_steps = 0

    def __init__(
        self,
        maker: Maker,
        env_kwargs: dict[str, Any],
        observation_size: int,
        num_workers: int,
        name: str,
        count: int,
    ) -> None:
        package = None
        if isinstance(maker, str):
            # A specification, because an id may be registered in this process alone.
            maker, package = find_spec(maker)
        shares = np.array_split(np.arange(count), min(num_workers, count))
        self._shares = shares
        self._owner = np.repeat(
            np.arange(len(shares)), [len(share) for share in shares]
        )
        self._index_in_worker = np.concatenate(
            [np.arange(len(share)) for share in shares]
        )
        self._size = observation_size
        self._seeds = np.zeros(count, np.int64)
        self._in_episode = np.zeros(count, bool)  # at least one step was taken
        self._must_restart = np.zeros(count, bool)  # by its new worker, from the seed
        self._lost = np.zeros(count, bool)
        self._make_arguments = [
            (maker, env_kwargs, len(share), name, package) for share in shares
        ]
        _check_can_be_sent(self._make_arguments[0], name)
        try:
            self._workers = [_Worker(arguments) for arguments in self._make_arguments]
            sizes = {worker.receive() for worker in self._workers}
        except (BrokenEnvironment, EOFError, ConnectionError) as error:
            failed = isinstance(error, BrokenEnvironment)
            made = ValueError(
                f"{name} cannot be made in a worker process; use vectorization='sync': "
                f"{error if failed else 'the process died'}"
            )
            for note in getattr(error, "__notes__", ()):
                made.add_note(note)
            raise made from None
        if sizes != {observation_size}:
            raise ValueError(
                f"{name} has observations of {observation_size} numbers in this "
                f"process and of {sorted(sizes)} in worker processes"
            )

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        self._seeds[ids] = seeds
        self._in_episode[ids] = self._lost[ids] = False
        return self._start(ids)

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._must_restart[ids].any():
            self._start(ids[self._must_restart[ids]])
        self._in_episode[ids] = True
        observations = np.full((len(ids), self._size), np.nan)
        rewards, ended = np.full(len(ids), np.nan), np.zeros(len(ids), bool)
        alive = np.flatnonzero(~self._lost[ids])
        for rows, answer in self._call("step", actions[alive], ids[alive]):
            if answer is not None:
                i = alive[rows]
                observations[i], rewards[i], ended[i] = answer
        return observations, rewards, ended

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _start(self, ids: np.ndarray) -> np.ndarray:
        """Start the episodes of `ids` from their seeds; returns observations [n, O]."""
        observations = np.empty((len(ids), self._size))
        for _ in range(_ATTEMPTS):
            answers = self._call("reset", self._seeds[ids], ids)
            for rows, answer in answers:
                if answer is not None:
                    observations[rows] = answer
            if all(answer is not None for _, answer in answers):
                self._must_restart[ids] = False
                return observations
        raise EngineLost(
            f"{_ATTEMPTS} worker processes died one after another at a reset; "
            "vectorization='sync' may show why"
        )

    def _call(
        self, name: str, values: np.ndarray, ids: np.ndarray
    ) -> list[tuple[np.ndarray, Any]]:
        """Call a method in all workers that own simulations among `ids`, in parallel.

        Returns:
            (rows of `ids`, answer) for each worker; None as the answer if it died.
        """
        owners = self._owner[ids]
        calls = [(w, np.flatnonzero(owners == w)) for w in np.unique(owners)]
        for w, rows in calls:
            self._workers[w].send(
                name, (values[rows], self._index_in_worker[ids[rows]])
            )
        answers = []
        for w, rows in calls:
            try:
                answers.append((rows, self._workers[w].receive()))
            except (EOFError, ConnectionError):
                self._replace(w)
                answers.append((rows, None))
        return answers

    def _replace(self, w: int) -> None:
        share = self._shares[w]
        self._lost[share] = self._in_episode[share]
        self._must_restart[share] = ~self._in_episode[share]
        self._workers[w].close()
        _log.warning(
            "worker process %d died (exit status %s) and is replaced; %d of its %d "
            "simulations start new episodes",
            self._workers[w].process.pid,
            self._workers[w].process.returncode,
            self._in_episode[share].sum(),
            len(share),
        )
        self._workers[w] = _Worker(self._make_arguments[w])
        try:
            self._workers[w].receive()
        except (EOFError, ConnectionError):
            raise EngineLost(
                "a worker process died, and so did its replacement before it had made "
                "its simulations; the machine may be out of memory"
            ) from None


def _check_can_be_sent(make_arguments: tuple[Any, ...], name: str) -> None:
    """Raise `ValueError` if what makes the environments cannot be pickled."""
    try:
        cloudpickle.dumps(make_arguments)
    except Exception as error:
        raise ValueError(
            f"{name} cannot be sent to worker processes ({error}); use "
            "vectorization='sync', or let it make what cannot be pickled when it is "
            "called"
        ) from error


def check_platform() -> None:
    """Raise `ValueError` on Windows, where processes inherit no sockets like these."""
    if sys.platform == "win32":
        raise ValueError(
            "vectorization='async' does not work on Windows; use 'sync', or a "
            "gymnasium.vector.AsyncVectorEnv from Python"
        )


class _Worker:
    """A worker process and the connection to it.

    It is not one of `multiprocessing`, whose processes are either forks, which are not
    safe with JAX's threads, or import the user's script a second time.
    """

    def __init__(self, make_arguments: tuple[Any, ...]) -> None:
        here, there = socket.socketpair()
        with there:
            # Without -P this package's folder would come before the user's modules.
            command = [sys.executable, "-P", worker_program.__file__]
            self.process = subprocess.Popen(
                [*command, str(there.fileno())], pass_fds=[there.fileno()]
            )
        self._connection = Connection(here.detach())
        self.close = weakref.finalize(self, _stop, self._connection, self.process)
        self._connection.send(sys.path)
        self.send("make", make_arguments)

    def send(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Send a call. If the worker is dead, `receive` raises the error."""
        with contextlib.suppress(ConnectionError):
            self._connection.send_bytes(cloudpickle.dumps((name, arguments)))

    def receive(self) -> Any:
        """The result of the last call.

        Raises:
            EOFError, ConnectionError: If the worker has died.
            BrokenEnvironment: If its environment raised an error, or returned what
                Gymnasium's API forbids. The worker's traceback is a note of it.
        """
        succeeded, result = self._connection.recv()
        if not succeeded:
            message, lines = result
            error = BrokenEnvironment(message)
            error.add_note(f"in a worker process:\n{lines}")
            raise error
        return result


def _stop(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # blocked in its simulator
        process.kill()
        process.wait()

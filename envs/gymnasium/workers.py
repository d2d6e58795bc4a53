"""Gymnasium simulations in worker processes, each with a share of them.

Gymnasium's `AsyncVectorEnv` has a process, and a message a step, for every single
simulation, and steps all of them. Here a step costs one message a process, and the
simulations that wait stand still.
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
import gymnasium
import numpy as np

from pes_rl.envs.gymnasium import simulations
from pes_rl.envs.gymnasium.simulations import Maker
from pes_rl.envs.rollout.base import EngineLost

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Resets of a simulation at which its worker may die before that is an error."""


class Workers:
    """As of `Vectorization`, for `count` simulations in up to `num_workers` processes.

    A worker that dies, killed by the system or crashed by its simulator, is replaced
    and the event is logged. Simulations that it had in mid-episode, or was to step, are
    lost: their step has a reward of NaN, which the engine takes for a simulation that
    diverged. Those that wait begin again at their first observation, which their seed
    decides. Where workers die one after another, `reset` and `step` raise `EngineLost`.

    Raises:
        ValueError: If an environment cannot be made in a worker.
    """

    idle_steps = 0

    def __init__(
        self,
        maker: Maker,
        env_kwargs: dict[str, Any],
        observation_size: int,
        num_workers: int,
        count: int,
    ) -> None:
        # A specification, because an id may be registered in this process alone.
        maker = gymnasium.spec(maker) if isinstance(maker, str) else maker
        shares = np.array_split(np.arange(count), min(num_workers, count))
        self._shares = shares
        self._owner = np.repeat(
            np.arange(len(shares)), [len(share) for share in shares]
        )
        self._place = np.concatenate([np.arange(len(share)) for share in shares])
        self._size = observation_size
        self._seeds = np.zeros(count, np.uint64)
        self._in_episode = np.zeros(count, bool)  # has taken a step of it
        self._must_begin = np.zeros(count, bool)  # again, from its seed
        self._lost = np.zeros(count, bool)
        self._made_of = [(maker, env_kwargs, len(share)) for share in shares]
        try:
            self._workers = [_Worker(made_of) for made_of in self._made_of]
            for worker in self._workers:
                worker.receive()
        except (_Failed, EOFError, ConnectionError) as error:
            reason = error if isinstance(error, _Failed) else "the process died"
            raise ValueError(
                "the environment cannot be made in a worker process; use "
                f"vectorization='sync'\n{reason}"
            ) from None

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        self._seeds[ids] = seeds
        self._in_episode[ids] = self._lost[ids] = False
        return self._begin(ids)

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._must_begin[ids].any():
            self._begin(ids[self._must_begin[ids]])
        self._in_episode[ids] = True
        observations = np.full((len(ids), self._size), np.nan)
        rewards, ended = np.full(len(ids), np.nan), np.zeros(len(ids), bool)
        alive = np.flatnonzero(~self._lost[ids])
        for rows, answer in self._ask("step", actions[alive], ids[alive]):
            if answer is not None:
                there = alive[rows]
                observations[there], rewards[there], ended[there] = answer
        return observations, rewards, ended

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _begin(self, ids: np.ndarray) -> np.ndarray:
        """First observations of the episodes that the seeds of `ids` decide."""
        observations = np.empty((len(ids), self._size))
        for _ in range(_ATTEMPTS):
            answers = self._ask("reset", self._seeds[ids], ids)
            for rows, answer in answers:
                if answer is not None:
                    observations[rows] = answer
            if all(answer is not None for _, answer in answers):
                self._must_begin[ids] = False
                return observations
        raise EngineLost(
            f"{_ATTEMPTS} worker processes died one after another at a reset; "
            "vectorization='sync' may show why"
        )

    def _ask(
        self, name: str, values: np.ndarray, ids: np.ndarray
    ) -> list[tuple[np.ndarray, Any]]:
        """Let the owners of `ids` work at once.

        Returns:
            (rows of `ids`, answer) of each; the answer of one that died is None.
        """
        owners = self._owner[ids]
        asked = [(w, np.flatnonzero(owners == w)) for w in np.unique(owners)]
        for w, rows in asked:
            self._workers[w].send(name, (values[rows], self._place[ids[rows]]))
        answers = []
        for w, rows in asked:
            try:
                answers.append((rows, self._workers[w].receive()))
            except (EOFError, ConnectionError):
                self._replace(w)
                answers.append((rows, None))
        return answers

    def _replace(self, w: int) -> None:
        share = self._shares[w]
        self._lost[share] = self._in_episode[share]
        self._must_begin[share] = ~self._in_episode[share]
        self._workers[w].close()
        _log.warning(
            "worker process %d died (exit status %s); another takes over, and %d of "
            "its %d simulations begin new episodes",
            self._workers[w].process.pid,
            self._workers[w].process.returncode,
            self._in_episode[share].sum(),
            len(share),
        )
        self._workers[w] = _Worker(self._made_of[w])
        try:
            self._workers[w].receive()
        except (EOFError, ConnectionError):
            raise EngineLost(
                "a worker process died, and the one in its place before it had made "
                "its simulations; the machine may be out of memory"
            ) from None


class _Failed(RuntimeError):
    """An environment raised in a worker; the message is its traceback."""


class _Worker:
    """A process and the connection to it.

    Not of `multiprocessing`, whose processes either are forks, which JAX's threads do
    not survive, or run the user's script a second time.
    """

    def __init__(self, made_of: tuple[Any, ...]) -> None:
        here, there = socket.socketpair()
        with there:
            # -P: or this package's folder would stand before the user's modules.
            command = [sys.executable, "-P", simulations.__file__, str(there.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[there.fileno()])
        self._connection = Connection(here.detach())
        self.close = weakref.finalize(self, _end, self._connection, self.process)
        self._connection.send(sys.path)
        self.send("make", made_of)

    def send(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Ask for a result; a dead worker shows at `receive`."""
        with contextlib.suppress(ConnectionError):
            self._connection.send_bytes(cloudpickle.dumps((name, arguments)))

    def receive(self) -> Any:
        """The result asked for.

        Raises:
            EOFError, ConnectionError: If the worker has died.
            _Failed: If its environment raised an error.
        """
        succeeded, result = self._connection.recv()
        if not succeeded:
            raise _Failed(f"an environment failed in a worker process:\n{result}")
        return result


def _end(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # stuck in its simulator
        process.kill()
        process.wait()

"""Gymnasium simulations stepped one after another, in this process or in a worker.

This file is also the program of a worker process. It imports nothing from `pes_rl`, so
a worker does not load JAX: it starts fast and needs little more memory than the
simulator.
"""

import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import FlattenObservation

Maker = str | EnvSpec | Callable[..., gymnasium.Env]


class Simulations:
    """A `Vectorization` of `count` environment objects, stepped one after another.

    Raises:
        ValueError: For the same reasons as in `make_env`.
    """

    idle_steps = 0

    def __init__(self, maker: Maker, env_kwargs: dict[str, Any], count: int) -> None:
        self._envs = [make_env(maker, env_kwargs) for _ in range(count)]

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        observations = [
            self._envs[i].reset(seed=int(seed))[0]
            for i, seed in zip(ids, seeds, strict=True)
        ]
        return np.asarray(observations, np.float64)

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observations: list[Any] = []
        rewards, ended = np.empty(len(ids)), np.empty(len(ids), bool)
        for k, i in enumerate(ids):
            row = self._envs[i].step(actions[k])
            observations.append(row[0])
            rewards[k], ended[k] = float(row[1]), row[2] or row[3]
        return np.asarray(observations, np.float64), rewards, ended

    def close(self) -> None:
        for env in self._envs:
            env.close()


def make_env(maker: Maker, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make an environment with continuous actions whose observation is one vector.

    Raises:
        ValueError: If it cannot be made, its actions are not a `Box`, or its
            observations are images or cannot be one vector.
    """
    if callable(maker) and not isinstance(maker, EnvSpec):
        env = maker(**env_kwargs)
        if not isinstance(env, gymnasium.Env):
            raise ValueError(
                f"{maker!r} made a {type(env).__name__}; it must make one "
                "gymnasium.Env, as a class derived from it does"
            )
    else:
        try:
            env = gymnasium.make(maker, **env_kwargs)
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            name = maker.id if isinstance(maker, EnvSpec) else maker
            raise ValueError(f"Gymnasium cannot make {name!r}: {error}") from error
    require_box(env.action_space)
    if must_flatten(env.observation_space):
        return FlattenObservation(env)
    return env


def require_box(space: gymnasium.Space) -> spaces.Box:
    """The action space; raises `ValueError` if it is not a `Box`."""
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"actions are {space}, but policies here are continuous; use an "
            "environment with a Box action space, such as gym:Pendulum-v1"
        )
    return space


def must_flatten(space: gymnasium.Space) -> bool:
    """Whether observations must be flattened to become one vector.

    Raises:
        ValueError: If they cannot be flattened, or are images.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return False
    if isinstance(space, spaces.Box) and len(space.shape) > 1:
        raise ValueError(
            f"observations have shape {space.shape}, but policies here take one "
            "vector; wrap the environment so that it returns a vector of features"
        )
    if not space.is_np_flattenable:
        raise ValueError(
            f"observations are {space}, which cannot be one vector; wrap the "
            "environment so that its observations are a Box"
        )
    return True


def serve(connection: Connection) -> None:
    """Main loop of a worker process: answer calls until the parent disconnects.

    The first message is the parent's `sys.path`. Every further one is a cloudpickled
    (method, arguments), the first of them "make" with the arguments of `Simulations`.
    Each answer is (True, result) or (False, traceback).
    """
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = connection.recv()
    simulations: Simulations | None = None
    try:
        while True:
            message = connection.recv_bytes()
            try:
                name, arguments = cloudpickle.loads(message)
                if name == "make":
                    simulations, result = Simulations(*arguments), None
                else:
                    result = getattr(simulations, name)(*arguments)
            except Exception:
                connection.send((False, traceback.format_exc()))
            else:
                connection.send((True, result))
    except (EOFError, ConnectionError):
        if simulations is not None:
            simulations.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))

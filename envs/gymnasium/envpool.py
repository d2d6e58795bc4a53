"""Gymnasium tasks as implemented by EnvPool in C++, stepped by its threads.

EnvPool seeds a simulation once, when it is made, and draws all of its episodes from
that one stream. So a reset of all particles makes a new pool, and the key of each
particle's first episode is the seed of its simulation. The members of a pair have the
same seed, and their j-th episodes start from the same state where a task draws random
numbers only at resets, as the MuJoCo tasks do. Where a task draws at every step too,
the members of a pair differ once their episodes have different lengths: the estimate
stays unbiased, with the variance of particles that have independent randomness.
"""

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from pes_rl.envs.gymnasium.making import check_actions, check_observations
from pes_rl.envs.gymnasium.results import describe, raise_broken


class EnvPoolThreads:
    """A `Vectorization` of `count` simulations of EnvPool's task `task`.

    Raises:
        BrokenEnvironment: By `reset` and `step`, if EnvPool raises an error.
    """

    idle_steps = 0

    def __init__(
        self, task: Any, env_kwargs: dict[str, Any], num_threads: int, count: int
    ) -> None:
        self._task, self._env_kwargs = task, env_kwargs
        self._num_threads, self._count = num_threads, count
        self._pool: Any = None

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        try:
            if self._pool is None:
                self._pool = import_envpool().make(
                    self._task,
                    env_type="gymnasium",
                    num_envs=self._count,
                    num_threads=self._num_threads,
                    seed=seeds.tolist(),
                    **self._env_kwargs,
                )
            observations, info = self._pool.reset(ids.astype(np.int32))
        except Exception as error:
            raise_broken(f"EnvPool's {self._task}: a reset", error)
        return _rows(observations)[_order(ids, info)]

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            observations, rewards, terminated, truncated, info = self._pool.step(
                actions, ids.astype(np.int32)
            )
        except Exception as error:
            raise_broken(f"EnvPool's {self._task}: a step", error)
        order = _order(ids, info)
        return (
            _rows(observations)[order],
            np.asarray(rewards, np.float64)[order],
            (terminated | truncated)[order],
        )

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


def pool_spaces(
    task: Any, env_kwargs: dict[str, Any]
) -> tuple[gymnasium.Space, gymnasium.Space, int]:
    """Action space, observation space and time limit of one of EnvPool's tasks.

    Raises:
        ValueError: If EnvPool is not installed, does not have the task, or its
            observations are not a `Box`.
    """
    envpool = import_envpool()
    if task not in envpool.list_all_envs():
        raise ValueError(
            f"EnvPool has no {task!r}; use vectorization='async', or an id of "
            "envpool.list_all_envs()"
        )
    try:
        spec = envpool.make_spec(task, **env_kwargs)
    except Exception as error:
        raise ValueError(f"EnvPool cannot make {task!r}: {describe(error)}") from error
    observations = spec.gymnasium_observation_space
    check_observations(observations)
    if not isinstance(observations, spaces.Box):
        raise ValueError(
            f"observations of EnvPool's {task!r} are {observations}, not one array; "
            "use vectorization='async', which flattens Gymnasium's"
        )
    actions = spec.gymnasium_action_space
    check_actions(actions)
    return actions, observations, spec.config.max_episode_steps


def import_envpool() -> Any:
    """The package `envpool`.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return importlib.import_module("envpool")
    except ImportError as error:
        raise ValueError(
            f"vectorization='envpool' needs EnvPool ({error}); "
            "pip install 'pes-rl[envpool]', or use 'async'"
        ) from error


def _rows(observations: Any) -> np.ndarray:
    """Observations, each flattened in C order. # shape=(n, O), dtype=float64."""
    array = np.asarray(observations, np.float64)
    return array.reshape(len(array), -1)


def _order(ids: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Indices that sort the rows of EnvPool's results into the order of `ids`."""
    row_of = np.empty(ids.max() + 1, int)
    row_of[info["env_id"]] = np.arange(len(ids))
    return row_of[ids]

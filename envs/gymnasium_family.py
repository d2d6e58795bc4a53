"""Any Gymnasium environment with a `Box` action space, on the host driver: `gym:ID`.

Each simulation is an environment object of its own, stepped one after another as in
Gymnasium's `SyncVectorEnv`, which cannot step some of its environments and leave the
others where they are; the engine needs that where episodes end early.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation


class GymnasiumEnvironment:
    """Gymnasium environments as a `HostEnvironment`.

    Dict, Tuple and other structured observations become one vector by Gymnasium's
    `FlattenObservation`. An episode ends where the environment terminates or truncates
    it, and its randomness is the seed of its `reset`, drawn from the episode's key.

    States cannot be copied, nor read: they live in the environment objects, and what
    `save` returns only says that nothing has gone on since. So agents that copy states
    refuse these environments, and a resumed run begins new episodes.

    Args:
        make: A Gymnasium id, "package:Id" to import a package first, or a function
            that makes an environment.
        env_kwargs: Keyword arguments for either.

    Raises:
        ValueError: If the environment cannot be made, its actions are not a `Box`, its
            observations are images, or it has no time limit and none is given.
    """

    on_device = False
    can_copy = False

    def __init__(
        self,
        make: str | Callable[..., gymnasium.Env],
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._make = make
        self._env_kwargs = env_kwargs or {}
        self._pools: dict[int, list[gymnasium.Env]] = {}
        self._generation = 0
        first = self._make_one()
        self._pools[1] = [first]
        actions, observations = first.action_space, first.observation_space
        assert isinstance(actions, spaces.Box)
        assert isinstance(observations, spaces.Box)
        self.observation_size = observations.shape[0]
        self._action_shape, self._action_dtype = actions.shape, actions.dtype
        self.action_low, self.action_high = actions.low.ravel(), actions.high.ravel()
        limit = first.spec.max_episode_steps if first.spec is not None else None
        self.horizon: int | None = limit

    def allocate(self, num_simulations: int) -> None:
        if num_simulations not in self._pools:
            pool = [self._make_one() for _ in range(num_simulations)]
            self._pools[num_simulations] = pool
        self._envs = self._pools[num_simulations]

    def load(self, state: np.ndarray) -> None:
        """Check that the simulations still are where `save` left them.

        Raises:
            ValueError: If they have gone on.
        """
        if not (state == self._generation).all():
            raise ValueError(
                "these simulations have gone on since, and a Gymnasium environment "
                "cannot be taken back; start new ones with reset"
            )
        self.allocate(len(state))

    def save(self) -> np.ndarray:
        self._generation += 1
        return np.full(len(self._envs), self._generation)

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        seeds = keys.astype(np.uint64) @ np.array([2**32, 1], np.uint64)
        starts = [
            self._envs[i].reset(seed=int(seed))[0]
            for i, seed in zip(ids, seeds, strict=True)
        ]
        return np.asarray(starts, np.float64)

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = np.arange(len(self._envs)) if ids is None else ids
        shape = (len(ids), *self._action_shape)
        actions = actions.reshape(shape).astype(self._action_dtype)
        observation = np.empty((len(ids), self.observation_size))
        reward, ended = np.empty(len(ids)), np.empty(len(ids), bool)
        for k, i in enumerate(ids):
            row = self._envs[i].step(actions[k])
            observation[k], reward[k] = row[0], row[1]  # type: ignore[assignment]
            ended[k] = row[2] or row[3]
        return observation, reward, ended

    def _make_one(self) -> gymnasium.Env:
        if callable(self._make):
            env = self._make(**self._env_kwargs)
        else:
            try:
                env = gymnasium.make(self._make, **self._env_kwargs)
            except (gymnasium.error.Error, ImportError, TypeError) as error:
                raise ValueError(
                    f"Gymnasium cannot make {self._make!r}: {error}"
                ) from error
        _check_actions(env.action_space)
        return _flat_observations(env)


def _check_actions(space: gymnasium.Space) -> None:
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"actions are {space}, but policies here are continuous; use an "
            "environment with a Box action space, such as gym:Pendulum-v1"
        )


def _flat_observations(env: gymnasium.Env) -> gymnasium.Env:
    space = env.observation_space
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return env
    if isinstance(space, spaces.Box) and len(space.shape) > 1:
        raise ValueError(
            f"observations have shape {space.shape}, but policies here take one "
            "vector; wrap the environment so that it observes features"
        )
    if not space.is_np_flattenable:
        raise ValueError(
            f"observations are {space}, which cannot be one vector; wrap the "
            "environment so that it observes a Box"
        )
    return FlattenObservation(env)

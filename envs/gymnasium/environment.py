"""Any Gymnasium environment with a `Box` action space, on the host driver: `gym:ID`.

How its simulations are stepped is a choice of its own: see `vectorization`.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from pes_rl.envs.gymnasium.choice import VectorizationName, choose
from pes_rl.envs.gymnasium.vectorization import Vectorization


class GymnasiumEnvironment:
    """Gymnasium environments as a `HostEnvironment`.

    Dict, Tuple and other structured observations become one vector by Gymnasium's
    `flatten`. An episode ends where the environment terminates or truncates it, and its
    randomness is the seed of its `reset`, drawn from the episode's key.

    States cannot be copied, nor read: they live in the simulations, and what `save`
    returns only says that nothing has gone on since. So agents that copy states refuse
    these environments, and a resumed run begins new episodes.

    Args:
        make: A Gymnasium id, "package:Id" to import a package first, a function that
            makes an environment, or a `VectorEnv`, whose simulations are then all
            there are.
        env_kwargs: Keyword arguments for the first three.
        vectorization: "sync" steps one simulation after another in this process,
            "async" shares them out to worker processes, "envpool" has EnvPool's threads
            step them; "auto" takes "async" where steps are slow enough for it to pay.
            A `VectorEnv` steps itself.
        num_threads: Worker processes, or EnvPool's threads; 0 takes every CPU.

    Attributes:
        vectorization: What was chosen, in words.

    Raises:
        ValueError: If the environment cannot be made, its actions are not a `Box`, its
            observations are images, or it cannot be stepped as asked.
    """

    on_device = False
    can_copy = False

    def __init__(
        self,
        make: str | Callable[..., gymnasium.Env] | VectorEnv,
        env_kwargs: dict[str, Any] | None = None,
        vectorization: VectorizationName = "auto",
        num_threads: int = 0,
    ) -> None:
        choice = choose(make, env_kwargs or {}, vectorization, num_threads)
        self.vectorization = choice.name
        self.observation_size = choice.observation_size
        self.horizon = choice.horizon
        self.action_low = choice.actions.low.ravel()
        self.action_high = choice.actions.high.ravel()
        self._actions, self._vectorize = choice.actions, choice.vectorize
        self._simulations: Vectorization | None = None
        self._generation = 0

    @property
    def idle_steps(self) -> int:
        """Steps so far of simulations that stood still here but not in a VectorEnv."""
        return 0 if self._simulations is None else self._simulations.idle_steps

    def allocate(self, num_simulations: int) -> None:
        if self._simulations is not None:
            self._simulations.close()
        self._simulations = self._vectorize(num_simulations)
        self._everyone = np.arange(num_simulations)
        self._generation += 1

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

    def save(self) -> np.ndarray:
        self._generation += 1
        return np.full(len(self._everyone), self._generation)

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        assert self._simulations is not None  # allocate comes first
        seeds = keys.astype(np.uint64) @ np.array([2**32, 1], np.uint64)
        return self._simulations.reset(seeds, ids)

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert self._simulations is not None
        ids = self._everyone if ids is None else ids
        shape = (len(ids), *self._actions.shape)
        actions = actions.reshape(shape).astype(self._actions.dtype)
        return self._simulations.step(actions, ids)

"""Any Gymnasium environment with a `Box` action space, for the host driver: `gym:ID`.

A `Vectorization` steps its simulations.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from pes_rl.envs.gymnasium.choice import VectorizationName, choose
from pes_rl.envs.gymnasium.simulations import BrokenEnvironment
from pes_rl.envs.gymnasium.vectorization import Vectorization
from pes_rl.envs.rollout.episodes import episode_seeds


class GymnasiumEnvironment:
    """Simulations of a Gymnasium environment, as a `HostEnvironment`.

    Gymnasium's `flatten` turns Dict, Tuple and other structured observations into one
    vector. An episode ends where the environment terminates or truncates it. All its
    randomness is decided by the seed of its `reset`, see `episode_seeds`.

    States can be neither copied nor read: they stay in the simulations, and what `save`
    returns only serves to check that no step was taken since. So agents that copy
    states refuse these environments, and a resumed run starts new episodes.

    Args:
        make: A Gymnasium id, "package:Id" to import a package first, a function that
            makes an environment, or a `VectorEnv`, whose number of simulations is then
            fixed.
        env_kwargs: Keyword arguments for the first three.
        vectorization: "sync" steps one simulation after another in this process,
            "async" distributes them over worker processes, "envpool" uses EnvPool's
            threads; "auto" is "async" where steps are slow enough, else "sync". A
            `VectorEnv` steps itself.
        num_threads: Worker processes, or EnvPool's threads; 0 uses every CPU.

    Attributes:
        vectorization: Description of the chosen vectorisation.

    Raises:
        ValueError: If the environment cannot be made, its actions are not a `Box`, its
            observations are images, or this vectorisation cannot step it.
        BrokenEnvironment: By `reset` and `step`, if an environment raises an error or
            returns what Gymnasium's API forbids, or a first observation that is not
            finite. A later one, or a reward of NaN, is a simulation that diverged.
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
        self._name = choice.environment
        self._actions, self._vectorize = choice.actions, choice.vectorize
        self._simulations: Vectorization | None = None
        self._generation = 0

    @property
    def idle_steps(self) -> int:
        """Steps so far that a `VectorEnv` took in simulations that should wait."""
        return 0 if self._simulations is None else self._simulations.idle_steps

    def allocate(self, num_simulations: int) -> None:
        if self._simulations is not None:
            self._simulations.close()
        self._simulations = self._vectorize(num_simulations)
        self._all_ids = np.arange(num_simulations)
        self._generation += 1

    def load(self, state: np.ndarray) -> None:
        """Check that the simulations are still in the state at `save`.

        Raises:
            ValueError: If they were stepped since.
        """
        if not (state == self._generation).all():
            raise ValueError(
                "these simulations were stepped since, and a Gymnasium environment "
                "cannot be set back; start new episodes with reset"
            )

    def save(self) -> np.ndarray:
        self._generation += 1
        return np.full(len(self._all_ids), self._generation)

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        assert self._simulations is not None  # allocate comes first
        observations = self._simulations.reset(episode_seeds(keys), ids)
        if not np.isfinite(observations).all():
            row = np.flatnonzero(~np.isfinite(observations).all(1))[0]
            raise BrokenEnvironment(
                f"{self._name}: reset(seed={episode_seeds(keys)[row]}) returned an "
                f"observation that is not finite: {observations[row]}"
            )
        return observations

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert self._simulations is not None
        ids = self._all_ids if ids is None else ids
        shape = (len(ids), *self._actions.shape)
        actions = actions.reshape(shape).astype(self._actions.dtype)
        return self._simulations.step(actions, ids)

    def close(self) -> None:
        """End processes and simulations; a user's `VectorEnv` stays open."""
        if self._simulations is not None:
            simulations, self._simulations = self._simulations, None
            simulations.close()

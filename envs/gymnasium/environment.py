"""Any Gymnasium environment whose spaces are vectors or can be: `gym:ID`, on the host.

A `Vectorization` steps its simulations.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import flatdim
from gymnasium.vector import VectorEnv

from pes_rl.envs.gymnasium.choice import VectorizationName, choose
from pes_rl.envs.gymnasium.results import BrokenEnvironment
from pes_rl.envs.gymnasium.sampling import ActionNoise
from pes_rl.envs.gymnasium.space_data import (
    action_bounds,
    describe_actions,
    describe_spaces,
)
from pes_rl.envs.gymnasium.vectorization import Vectorization
from pes_rl.envs.rollout.episodes import episode_seeds


class GymnasiumEnvironment:
    """Simulations of a Gymnasium environment, as a `HostEnvironment`.

    Gymnasium's `flatten` turns Dict, Tuple and other structured observations into one
    vector. Actions of `step` are vectors too, outputs of a policy: for a discrete space
    one for each choice, of which the greatest is chosen, for a `Box` its numbers in C
    order; see `pes_rl.envs.spaces`. An episode ends where the environment terminates or
    truncates it. All its randomness is decided by the seed of its `reset`, see
    `episode_seeds`.

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
        sample_actions: Choose discrete actions at random with the probabilities of the
            outputs' softmax, by random numbers of the episode; see `ActionNoise`.

    Attributes:
        vectorization: Description of the chosen vectorisation.
        spaces: The environment's own observations and actions.

    Raises:
        ValueError: If the environment cannot be made, a policy cannot return its
            actions, its observations cannot be one vector, this vectorisation cannot
            step it, or actions of a `Box` should be sampled.
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
        sample_actions: bool = False,
    ) -> None:
        choice = choose(make, env_kwargs or {}, vectorization, num_threads)
        self.vectorization = choice.name
        self.spaces = describe_spaces(choice.observations, choice.actions)
        self.observation_size = flatdim(choice.observations)
        self.horizon = choice.horizon
        self.action_low, self.action_high = action_bounds(choice.actions)
        self._name = choice.environment
        self._actions = describe_actions(choice.actions)
        self._action_dtype = choice.actions.dtype
        self._vectorize = choice.vectorize
        self._noise = ActionNoise(self._actions) if sample_actions else None
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
        if self._noise is not None:
            self._noise.start(ids, keys)
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
        if self._noise is not None:
            actions = actions + self._noise.draw(ids)
        own = self._actions.to_action(actions).astype(self._action_dtype, copy=False)
        return self._simulations.step(own, ids)

    def close(self) -> None:
        """End processes and simulations; a user's `VectorEnv` stays open."""
        if self._simulations is not None:
            simulations, self._simulations = self._simulations, None
            simulations.close()

"""A `gymnasium.vector.VectorEnv` that the user hands over.

It steps all of its simulations. So those that should wait, at the first observation of
their next episode, are dragged along: their steps count (`idle_steps`), what they
bring does not, and before one of them is to go on its episode begins afresh from its
seed. The reset of chosen simulations right after their end, which every episode here
begins with, forestalls the environment's own autoreset, so its mode does not matter:

- NEXT_STEP: the reset that the next step would have been is not pending any more;
- SAME_STEP: the first observation that came with the last step, of an episode with
  another seed, is dropped; the last one is in `infos["final_obs"]`;
- DISABLED: the reset is what the environment asks for.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

from pes_rl.envs.gymnasium.simulations import continuous, must_flatten


class HandedOver:
    """As of `Vectorization`, for the simulations of a `VectorEnv`.

    Raises:
        ValueError: If it cannot begin chosen simulations again from chosen seeds, its
            actions are not a `Box`, or its observations cannot be one vector.
    """

    def __init__(self, envs: VectorEnv) -> None:
        actions = continuous(envs.single_action_space)
        self._must_flatten = must_flatten(envs.single_observation_space)
        self._envs = envs
        # For those dragged along: which it is does not matter, if it is a legal action.
        idle = np.clip(np.zeros_like(actions.low), actions.low, actions.high)
        self._idle = np.repeat(idle[None], envs.num_envs, axis=0)
        self._seeds = np.zeros(envs.num_envs, np.uint64)
        self._dragged = np.zeros(envs.num_envs, bool)
        self.idle_steps = 0
        self._check_resets()
        self.idle_steps = 0

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        self._seeds[ids] = seeds
        return self._begin(ids)[ids]

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        back = ids[self._dragged[ids]]
        if len(back):
            self._begin(back)
        everyone = self._idle.copy()
        everyone[ids] = actions
        observations, rewards, terminated, truncated, infos = self._envs.step(everyone)
        rows = self._flat(observations)
        ended = np.asarray(terminated) | np.asarray(truncated)
        for i in np.flatnonzero(ended & infos.get("_final_obs", False)):
            last = infos["final_obs"][i]
            rows[i] = spaces.flatten(self._envs.single_observation_space, last)
        standing = np.ones(len(ended), bool)
        standing[ids] = False
        self._dragged |= standing
        self.idle_steps += int(standing.sum())
        if (standing & ended).any():
            self._begin(np.flatnonzero(standing & ended))
        return rows[ids], np.asarray(rewards, np.float64)[ids], ended[ids]

    def close(self) -> None:
        """Leave it open: it is the user's."""

    def _begin(self, ids: np.ndarray) -> np.ndarray:
        """Begin the episodes of `ids`; all observations [N, O]."""
        mask = np.zeros(len(self._seeds), bool)
        mask[ids] = True
        self._dragged[ids] = False
        seeds: Any = [
            int(seed) if chosen else None
            for seed, chosen in zip(self._seeds, mask, strict=True)
        ]
        observations, _ = self._envs.reset(seed=seeds, options={"reset_mask": mask})
        return self._flat(observations)

    def _flat(self, observations: Any) -> np.ndarray:
        if self._must_flatten:
            single = self._envs.single_observation_space
            each = iterate(self._envs.observation_space, observations)
            observations = [spaces.flatten(single, one) for one in each]
        return np.array(observations, np.float64)

    def _check_resets(self) -> None:
        """Try what episodes need: to begin chosen ones again from chosen seeds."""
        base: Any = self._envs.unwrapped
        mode = self._envs.metadata.get("autoreset_mode")
        if (
            isinstance(base, AsyncVectorEnv)
            and mode == AutoresetMode.NEXT_STEP
            and not base.shared_memory
        ):
            raise ValueError(
                "an AsyncVectorEnv without shared memory takes the step after a reset "
                "for another reset; use shared_memory=True, or "
                "autoreset_mode=AutoresetMode.DISABLED"
            )
        everyone = np.arange(self._envs.num_envs)
        some = everyone[:1]
        try:
            first = self.reset(everyone.astype(np.uint64), everyone)
            stepped, _, ended = self.step(self._idle, everyone)
            again = self._begin(some)
            others = everyone[1:][~ended[1:]]
            works = np.array_equal(again[some], first[some], equal_nan=True)
            works &= np.array_equal(again[others], stepped[others], equal_nan=True)
        except Exception as error:
            raise ValueError(_cannot_reset(self._envs, f" ({error})")) from error
        if not works:
            raise ValueError(_cannot_reset(self._envs, ""))


def _cannot_reset(envs: VectorEnv, reason: str) -> str:
    return (
        f"this {type(envs).__name__} does not begin chosen simulations again from "
        f"chosen seeds{reason}, by reset(seed=[...], options={{'reset_mask': mask}}); "
        "episodes that end at different steps need that, with every agent. Hand over "
        "a SyncVectorEnv or an AsyncVectorEnv, or the constructor of one environment; "
        "for EnvPool, name its task: env='gym:ID', vectorization='envpool'"
    )

"""Simulations of a `gymnasium.vector.VectorEnv` that the user passes.

A `VectorEnv` always steps all of its simulations. A simulation that should wait at the
start of its next episode takes idle steps: they are counted (`idle_steps`), their
results are ignored, and before the simulation is used again its episode is started
again from its seed. Every episode here starts with a reset of chosen simulations right
after the end of the last one. It comes before the environment's own autoreset, whose
mode therefore does not matter:

- NEXT_STEP: the next step would have been a reset, which is no longer pending;
- SAME_STEP: the step that ended the episode also returned the first observation of an
  episode with another seed, which is ignored; the last observation of the episode is in
  `infos["final_obs"]`;
- DISABLED: the environment requires this reset.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
)
from gymnasium.vector.utils import iterate

from pes_rl.envs.gymnasium.checked_envs import CheckedEnvs
from pes_rl.envs.gymnasium.making import check_actions, check_observations
from pes_rl.envs.gymnasium.results import (
    BrokenEnvironment,
    describe,
    flatten_observation,
    raise_broken,
    read_observation,
)
from pes_rl.envs.gymnasium.space_data import idle_actions


class VectorEnvSimulations:
    """A `Vectorization` by a `VectorEnv`.

    Raises:
        ValueError: If it cannot reset chosen simulations with chosen seeds, a policy
            cannot return its actions, or its observations cannot be one vector.
        BrokenEnvironment: By `reset` and `step`, if it raises an error or returns what
            Gymnasium's API forbids; the environments of a `SyncVectorEnv` too. What
            another `VectorEnv` converts is not seen: `AsyncVectorEnv` makes a reward of
            None NaN, so a simulation that diverged.

    Attributes:
        name: Name of the environment in error messages.
    """

    def __init__(self, envs: VectorEnv) -> None:
        check_actions(envs.single_action_space)
        check_observations(envs.single_observation_space)
        self._envs = envs
        self.name = f"this {type(envs).__name__}"
        if envs.spec is not None:
            self.name += f" of {envs.spec.id}"
        self._steps = 0  # of the VectorEnv since it was made
        self._idle_actions = idle_actions(envs.single_action_space, envs.num_envs)
        self._seeds = np.zeros(envs.num_envs, np.int64)
        self._must_restart = np.zeros(envs.num_envs, bool)
        self.idle_steps = 0
        base: Any = envs.unwrapped
        self._checks: Callable[[], AbstractContextManager[None]] = nullcontext
        if isinstance(base, SyncVectorEnv):
            self._checks = CheckedEnvs(base, self.name).in_place
        self._check_resets()
        self.idle_steps = 0  # without those of the check

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        self._seeds[ids] = seeds
        return self._start(ids)[ids]

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        idled = ids[self._must_restart[ids]]
        if len(idled):
            self._start(idled)
        all_actions = self._idle_actions.copy()
        all_actions[ids] = actions
        self._steps += 1
        rows, rewards, ended = self._step(all_actions)
        idle = np.ones(len(ended), bool)
        idle[ids] = False
        self._must_restart |= idle
        self.idle_steps += int(idle.sum())
        if (idle & ended).any():
            self._start(np.flatnonzero(idle & ended))
        return rows[ids], rewards[ids], ended[ids]

    def close(self) -> None:
        """Do nothing: the user owns the environment and closes it."""

    def _start(self, ids: np.ndarray) -> np.ndarray:
        """Start the episodes of `ids` from their seeds; returns observations [N, O]."""
        mask = np.zeros(len(self._seeds), bool)
        mask[ids] = True
        self._must_restart[ids] = False
        seeds: Any = [
            int(seed) if chosen else None
            for seed, chosen in zip(self._seeds, mask, strict=True)
        ]
        try:
            with self._checks():
                result = self._envs.reset(seed=seeds, options={"reset_mask": mask})
        except BrokenEnvironment:
            raise
        except (Exception, SystemExit) as error:
            raise_broken(f"{self.name}: a reset", error)
        if not isinstance(result, tuple | list) or len(result) != 2:
            self._refuse("a reset", f"{result!r} instead of (observations, infos)")
        return self._flatten(result[0], "a reset")

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step all simulations; returns (observations, rewards, ended) of them."""
        what = f"step {self._steps}"
        try:
            with self._checks():
                result = self._envs.step(actions)
        except BrokenEnvironment:
            raise
        except (Exception, SystemExit) as error:
            raise_broken(f"{self.name}: {what}", error)
        if not isinstance(result, tuple | list) or len(result) != 5:
            self._refuse(
                what,
                "something other than the five values (observations, rewards, "
                "terminated, truncated, infos)",
            )
        observations, rewards, terminated, truncated, infos = result
        rows = self._flatten(observations, what)
        rewards = self._batch("rewards", rewards, "biuf", what).astype(np.float64)
        ended = self._batch("terminated", terminated, "biu", what).astype(bool)
        ended |= self._batch("truncated", truncated, "biu", what).astype(bool)
        for i in np.flatnonzero(ended & infos.get("_final_obs", False)):
            last = infos["final_obs"][i]
            rows[i] = flatten_observation(last, self._envs.single_observation_space)
        return rows, rewards, ended

    def _batch(self, name: str, values: Any, kinds: str, what: str) -> np.ndarray:
        """Values of all simulations, checked; `kinds` are NumPy's letters of types."""
        array = np.asarray(values)
        if array.shape != self._seeds.shape or array.dtype.kind not in kinds:
            self._refuse(
                what,
                f"{name} of shape {array.shape} and type {array.dtype}; it must have "
                f"shape {self._seeds.shape} and numbers",
            )
        return array

    def _flatten(self, observations: Any, what: str) -> np.ndarray:
        single = self._envs.single_observation_space
        try:
            if isinstance(single, spaces.Box) and len(single.shape) == 1:
                shape = (len(self._seeds), *single.shape)
                rows = read_observation(observations, shape, single.dtype)
            else:
                each = iterate(self._envs.observation_space, observations)
                rows = np.stack([flatten_observation(one, single) for one in each])
                shape = (len(self._seeds), spaces.flatdim(single))
                rows = read_observation(rows, shape, rows.dtype)
            return rows.astype(np.float64)
        except ValueError as error:
            raise BrokenEnvironment(f"{self.name}: {what} {error}") from None
        except Exception as error:
            reason = f"returned an observation that cannot be read: {describe(error)}"
            raise BrokenEnvironment(f"{self.name}: {what} {reason}") from None

    def _refuse(self, what: str, came: str) -> NoReturn:
        raise BrokenEnvironment(f"{self.name}: {what} returned {came}")

    def _check_resets(self) -> None:
        """Check that chosen simulations can be reset with chosen seeds."""
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
        all_ids = np.arange(self._envs.num_envs)
        first_id = all_ids[:1]
        first = self._attempt_reset(partial(self.reset, all_ids, all_ids))
        stepped, _, ended = self.step(self._idle_actions, all_ids)
        again = self._attempt_reset(partial(self._start, first_id))
        others = all_ids[1:][~ended[1:]]
        works = np.array_equal(again[first_id], first[first_id], equal_nan=True)
        works &= np.array_equal(again[others], stepped[others], equal_nan=True)
        if not works:
            raise ValueError(_cannot_reset(self._envs, ""))

    def _attempt_reset(self, reset: Callable[[], np.ndarray]) -> np.ndarray:
        try:
            return reset()
        except BrokenEnvironment as error:
            if error.__cause__ is None:  # it did reset, and returned nonsense
                raise
            raise ValueError(_cannot_reset(self._envs, f" ({error})")) from error


def _cannot_reset(envs: VectorEnv, reason: str) -> str:
    return (
        f"this {type(envs).__name__} does not reset chosen simulations with chosen "
        f"seeds{reason} by reset(seed=[...], options={{'reset_mask': mask}}); episodes "
        "that end at different steps need that, with every agent. Pass a "
        "SyncVectorEnv or an AsyncVectorEnv, or the constructor of one environment; "
        "for EnvPool, name its task: env='gym:ID', vectorization='envpool'"
    )

"""Gymnasium simulations stepped one after another, in this process or in a worker.

Worker processes load this file too; see `worker_program.py`.
"""

import contextlib
import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .making import Maker, make_env
from .results import BrokenEnvironment, StepReader, raise_broken, read_reset


class Simulations:
    """A `Vectorization` of `count` environment objects, stepped one after another.

    What each reset and step returns is checked, see `read_reset` and `StepReader`.

    Args:
        maker: Makes an environment.
        env_kwargs: Its keyword arguments.
        count: Number of environments.
        name: Name of the environment in error messages.
        package: Package to import first; it may register environments.

    Attributes:
        observations: Observation space of one simulation.
        actions: Its action space.
        observation_size: Length O of an observation flattened to one vector.

    Raises:
        ValueError: For the same reasons as in `make_env`.
        BrokenEnvironment: By `reset` and `step`, if the environment raises an error or
            returns what Gymnasium's API forbids.
    """

    idle_steps = 0

    def __init__(
        self,
        maker: Maker,
        env_kwargs: dict[str, Any],
        count: int,
        name: str,
        package: str | None = None,
    ) -> None:
        if package is not None:
            importlib.import_module(package)
        self._name = name
        self._envs = [make_env(maker, env_kwargs) for _ in range(count)]
        self._steps = np.zeros(count, int)  # of the current episodes
        self.observations: gymnasium.Space = self._envs[0].observation_space
        self.actions: gymnasium.Space = self._envs[0].action_space
        self.observation_size = spaces.flatdim(self.observations)
        self._read_step = StepReader(self.observations)
        for env in self._envs:
            space = env.observation_space
            if spaces.flatdim(space) != self.observation_size:
                raise ValueError(
                    f"{name} has observations of shape {self.observations.shape} when "
                    f"it is made once and {space.shape} another time"
                )

    @property
    def time_limit(self) -> int | None:
        """The environment's own time limit, in steps; None without one."""
        spec = self._envs[0].spec
        return None if spec is None else spec.max_episode_steps

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        observations = np.empty((len(ids), self.observation_size))
        for k, i in enumerate(ids):
            seed = int(seeds[k])
            self._steps[i] = 0
            try:
                result = self._envs[i].reset(seed=seed)
            except (Exception, SystemExit) as error:
                raise_broken(f"{self._name}: reset(seed={seed})", error)
            try:
                observations[k] = read_reset(result, self.observations)
            except ValueError as error:
                raise BrokenEnvironment(
                    f"{self._name}: reset(seed={seed}) {error}"
                ) from None
        return observations

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observations = np.empty((len(ids), self.observation_size))
        rewards, ended = np.empty(len(ids)), np.empty(len(ids), bool)
        self._steps[ids] += 1
        for k, i in enumerate(ids.tolist()):
            try:
                result = self._envs[i].step(actions[k])
            except (Exception, SystemExit) as error:
                raise_broken(f"{self._name}: step {self._steps[i]}", error)
            try:
                observations[k], rewards[k], ended[k] = self._read_step(result)
            except ValueError as error:
                raise BrokenEnvironment(
                    f"{self._name}: step {self._steps[i]} of an episode {error}"
                ) from None
        return observations, rewards, ended

    def close(self) -> None:
        for env in self._envs:
            # All results are there, and the others must be closed too.
            with contextlib.suppress(Exception, SystemExit):
                env.close()

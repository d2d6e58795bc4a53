"""The counting environment of counting.py as a Gymnasium environment.

It does not import JAX, so that worker processes start fast.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class GymnasiumCounting(gymnasium.Env):
    """Its observation is (step number, tide); rewards and ends are as in counting.py.

    Args:
        time_limit: Steps after which an episode is truncated, or None.
        diverges_at: As in counting.py.
        fails: Whether a step raises an error.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Box(-4, 4, (1,))

    def __init__(
        self,
        time_limit: int | None = None,
        diverges_at: int | None = None,
        fails: bool = False,
    ) -> None:
        self.time_limit = time_limit
        self.diverges_at = diverges_at
        self.fails = fails

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        # Without a seed, as in an autoreset: an episode that no test expects.
        seed = 999 if seed is None else seed
        self.steps = 0
        self.tide = seed % 1024
        self.fuel = 6 + (seed >> 10) % 3
        self.drift = 0.0
        return np.array([0, self.tide], np.float32), {}

    def step(self, action: Any) -> Any:
        if self.fails:
            raise OSError("the robot is on fire")
        push = min(max(np.floor(2 * float(action[0])) / 2, -4.0), 4.0)
        self.steps += 1
        self.drift += push
        self.fuel -= 2 if push > 0 else 1
        reward = push * (1 + (self.tide + self.steps) % 3) + self.drift
        observation = np.array([self.steps, self.tide], np.float32)
        if self.steps == self.diverges_at and push >= 1:
            if self.tide % 2 == 1:
                observation[:] = np.nan
            else:
                reward = np.nan
        truncated = self.time_limit is not None and self.steps >= self.time_limit
        return observation, float(reward), self.fuel <= 0, truncated, {}

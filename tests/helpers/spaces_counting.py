"""Environments that count in observations, and pay for actions, of any space.

They do not import JAX, so that worker processes start fast. By name they are
gym:spaces_counting:SpacesCounting-v0.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 5
"""Steps of an episode."""

IMAGE = np.arange(6).reshape(2, 3)


class SpacesCounting(gymnasium.Env):
    """The observation tells the step; the reward is a weighted sum of the action.

    It refuses actions that are not of its space. The weights are powers of ten, so that
    a reward shows each number of the action.

    Args:
        observation: One of `OBSERVATIONS`.
        action: One of `ACTIONS`.
    """

    metadata: ClassVar[Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        observation: str = "vector",
        action: str = "vector",
        render_mode: str | None = None,
    ) -> None:
        self.observation_space, self._observe = OBSERVATIONS[observation]
        self.action_space = ACTIONS[action]
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(0), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.steps += 1
        numbers = np.asarray(action, np.float64).ravel()
        reward = float(numbers @ 10.0 ** np.arange(len(numbers)))
        return self._observe(self.steps), reward, self.steps == LENGTH, False, {}

    def render(self) -> Any:
        return np.full((16, 16, 3), 20 * self.steps, np.uint8)


class TextActions(SpacesCounting):
    """No policy can return its actions."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space: spaces.Space = spaces.Text(5)


def vector(step: int) -> Any:
    return np.array([step, -step], np.float32)


def nested(step: int) -> Any:
    return {
        "way": (step % 3 - 1, vector(step)),
        "on": np.array([1, step % 2], np.int8),
        "image": (IMAGE + step).astype(np.uint8),
    }


OBSERVATIONS: dict[str, Any] = {
    "vector": (spaces.Box(-9, 9, (2,)), vector),
    "image": (
        spaces.Box(0, 255, (2, 3), np.uint8),
        lambda step: (IMAGE + step).astype(np.uint8),
    ),
    "number": (spaces.Box(-9, 9, ()), lambda step: np.array(step, np.float32)),
    "discrete": (spaces.Discrete(6, start=-1), lambda step: step - 1),
    "multi-discrete": (
        spaces.MultiDiscrete([3, 6], start=[1, 0]),
        lambda step: np.array([1 + step % 3, step]),
    ),
    "multi-binary": (
        spaces.MultiBinary(3),
        lambda step: np.array([step & 1, step >> 1 & 1, step >> 2], np.int8),
    ),
    "tuple": (
        spaces.Tuple((spaces.Discrete(6), spaces.Box(-9, 9, (2,)))),
        lambda step: (step, vector(step)),
    ),
    "nested": (
        spaces.Dict(
            {
                "way": spaces.Tuple(
                    (spaces.Discrete(3, start=-1), spaces.Box(-9, 9, (2,)))
                ),
                "on": spaces.MultiBinary(2),
                "image": spaces.Box(0, 255, (2, 3), np.uint8),
            }
        ),
        nested,
    ),
}

FLATTENED: dict[str, list[float]] = {
    "vector": [4, -4],
    "image": [4, 5, 6, 7, 8, 9],
    "number": [4],
    "discrete": [0, 0, 0, 0, 1, 0],
    "multi-discrete": [0, 1, 0, 0, 0, 0, 0, 1, 0],
    "multi-binary": [0, 0, 1],
    "tuple": [0, 0, 0, 0, 1, 0, 4, -4],
    # Keys in their order: image, on, way.
    "nested": [4, 5, 6, 7, 8, 9, 1, 0, 0, 1, 0, 4, -4],
}
"""The observation at step 4 as a vector, by hand."""

ACTIONS: dict[str, spaces.Space] = {
    "vector": spaces.Box(-9, 9, (2,)),
    "matrix": spaces.Box(-9, 9, (2, 2), np.float64),
    "discrete": spaces.Discrete(3, start=5),
    "five": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([2, 3], start=[0, 4], dtype=np.int32),
    "grid": spaces.MultiDiscrete(np.array([[2, 2], [3, 2]])),
    "multi-binary": spaces.MultiBinary(3),
}

CHOSEN: dict[str, tuple[list[float], Any]] = {
    "vector": ([0.5, -1], [0.5, -1]),
    "matrix": ([0.5, -1, 2, 3], [[0.5, -1], [2, 3]]),
    "discrete": ([-1, 2, 2], 6),  # the first of equal ones
    "five": ([0, -1, -2, 2, 1], 3),
    "multi-discrete": ([3, 4, 7, 7, 7], [1, 4]),
    "grid": ([0, 1, 1, 0, -3, -1, -2, 5, 5], [[1, 0], [1, 0]]),
    "multi-binary": ([0.1, 0, -0.1], [1, 0, 0]),
}
"""Outputs of a policy, and the action that they are, by hand."""

gymnasium.register("TextActions-v0", "spaces_counting:TextActions")
gymnasium.register(
    "SpacesCounting-v0", "spaces_counting:SpacesCounting", max_episode_steps=10
)

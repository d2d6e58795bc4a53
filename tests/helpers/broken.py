"""Gymnasium environments that break the API in one way each.

It does not import JAX, so that worker processes start fast.
"""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Sound(gymnasium.Env):
    """Two observations, one action, episodes of four steps; the others derive from it.

    `change(step, result)` gives what the step, or the reset as step 0, returns instead.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space: spaces.Space = spaces.Box(-1, 1, (1,), np.float32)

    def change(self, step: int, result: tuple[Any, ...]) -> Any:
        return result

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        first = self.np_random.normal(size=2).astype(np.float32)
        return self.change(0, (first, {}))

    def step(self, action: Any) -> Any:
        self.steps += 1
        row = self.np_random.normal(size=2).astype(np.float32)
        return self.change(self.steps, (row, 1.0, self.steps == 4, False, {}))


def breaks(at: int, change: Callable[..., Any]) -> type[Sound]:
    """An environment whose step `at` (0: reset) returns `change(*result)`."""

    class Broken(Sound):
        def change(self, step: int, result: tuple[Any, ...]) -> Any:
            return change(*result) if step == at else result

    return Broken


def shaped(at: int, make: Callable[[Any], Any]) -> type[Sound]:
    """An environment whose step `at` returns `make(observation)` as observation."""
    return breaks(at, lambda row, *rest: (make(row), *rest))


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


class Integral(Sound):
    observation_space = spaces.Box(0, 9, (2,), np.int64)


class Burning(Sound):
    def step(self, action: Any) -> Any:
        if self.steps == 2:
            raise OSError("no arm")
        return super().step(action)


FAULTS: dict[str, tuple[type[Sound], int, str]] = {
    "reset returns no info": (breaks(0, lambda row, _: row), 0, "reset"),
    "reset returns 3 values": (breaks(0, lambda *r: (*r, 0)), 0, "3 values"),
    "step of old Gym": (breaks(1, lambda o, r, d, _, i: (o, r, d, i)), 1, "4 values"),
    "step returns 6 values": (breaks(3, lambda *r: (*r, 0)), 3, "6 values"),
    "step returns None": (breaks(2, lambda *_: None), 2, "one NoneType"),
    "long at reset": (shaped(0, lambda _: np.zeros(3)), 0, r"shape \(3,\)"),
    "column at reset": (shaped(0, lambda row: row[:, None]), 0, r"\(2, 1\)"),
    "short at step 1": (shaped(1, lambda row: row[:1]), 1, r"shape \(1,\)"),
    "long at step 3": (shaped(3, lambda _: np.zeros(5)), 3, r"shape \(5,\)"),
    "None at step 2": (shaped(2, lambda _: None), 2, r"shape \(\)"),
    "complex at step 2": (shaped(2, lambda row: row + 1j), 2, "type complex"),
    "text at step 1": (shaped(1, lambda _: np.array(["a", "b"])), 1, "type <U1"),
    "reward is an array": (
        breaks(2, lambda o, _, *r: (o, np.ones(2), *r)),
        2,
        r"reward array\(\[1., 1.\]\)",
    ),
    "reward in a list of one": (
        breaks(2, lambda o, _, *r: (o, np.ones(1), *r)),
        2,
        r"reward array\(\[1.\]\)",
    ),
    "reward is None": (breaks(1, lambda o, _, *r: (o, None, *r)), 1, "reward None"),
    "terminated is None": (
        breaks(2, lambda o, r, _, *rest: (o, r, None, *rest)),
        2,
        "terminated=None",
    ),
    "truncated is an array": (
        breaks(2, lambda o, r, t, _, i: (o, r, t, np.zeros(2, bool), i)),
        2,
        "truncated=array",
    ),
    "NaN at reset": (shaped(0, lambda row: row * np.nan), 0, "not finite"),
    "infinite at reset": (shaped(0, lambda row: row + np.inf), 0, "not finite"),
    "sys.exit at reset": (breaks(0, lambda *_: sys.exit(0)), 0, "raised SystemExit: 0"),
    "sys.exit at step 2": (
        breaks(2, lambda *_: sys.exit(0)),
        2,
        "raised SystemExit: 0",
    ),
    "OSError at step 3": (
        Burning,
        3,
        "raised OSError: no arm .line [0-9]+ of .*broken.py: raise OSError",
    ),
    "AttributeError at reset": (
        breaks(0, raising(AttributeError("no arm"))),
        0,
        "raised AttributeError: no arm",
    ),
    "fractions in a space of integers": (Integral, 0, "type float32"),
}
"""Name of the fault -> (environment, step where it is, what the message says)."""

LATE: dict[str, tuple[Callable[..., Any], str]] = {
    "reward is None": (lambda o, _, *r: (o, None, *r), "reward None"),
    "reward in a list": (lambda o, _, *r: (o, [1.0], *r), r"reward \[1.0\]"),
    "terminated is None": (lambda o, r, _, *a: (o, r, None, *a), "terminated=None"),
    "another shape": (lambda o, *r: (o[:1], *r), r"shape \(1,\)"),
    "another type": (lambda o, *r: (o + 1j, *r), "type complex"),
    "four values": (lambda *r: r[:4], "4 values"),
    "an error": (raising(OSError("no arm")), "raised OSError: no arm .line"),
}
"""Name of the fault -> (what it makes of a step's result, what the message says)."""


class Old(Sound):
    """Seeds a `RandomState` and a C integer, as old environments do."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert type(seed) is int
        np.random.RandomState(seed)
        if seed != np.array(seed, np.int64).astype(np.int32):
            raise OverflowError("signed integer is greater than maximum")
        return super().reset(seed=seed)

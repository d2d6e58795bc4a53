"""Schedules that a user writes: a setting as a function of the progress of the run."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Schedule = Callable[[jax.Array], Any]
"""The value at a progress in [0, 1]: the share of `total_timesteps` that is used."""

_POINTS = 101
"""Values of a schedule that are checked, from the beginning to the end of the run."""


def value_at(schedule: Schedule, progress: jax.Array) -> jax.Array:
    """The schedule's value; a progress beyond the budget is its end. # shape=()."""
    return jnp.asarray(schedule(jnp.clip(progress, 0.0, 1.0)), jnp.float32)


def linear(start: float, end: float) -> Schedule:
    """The schedule from `start` to `end` in proportion to the progress.

    >>> linear(1.0, 3.0)(0.5)
    2.0
    """
    return lambda progress: start + (end - start) * progress


def take_schedules(
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Schedule]]:
    """Settings with numbers in place of functions, and the functions.

    The number is the largest value of the function. The settings of another schedule of
    the same thing are switched off.

    Raises:
        ValueError: If a function cannot be used, or a second schedule is given.
    """
    settings, schedules = dict(options), {}
    for name, (other, off) in _OTHER_SCHEDULES.items():
        function = options.get(name)
        if not callable(function):
            continue
        if other in options and options[other] != off:
            raise ValueError(
                f"{name} is a function, the whole schedule, and {other}="
                f"{options[other]!r} is another one; drop {other}"
            )
        schedules[name] = function
        settings |= {name: largest_value(name, function), other: off}
    return settings, schedules


_OTHER_SCHEDULES = {
    "learning_rate": ("learning_rate_decay", "constant"),
    "sigma": ("final_sigma", None),
    "reward_shift": ("final_reward_shift", None),
}


def largest_value(name: str, schedule: Schedule) -> float:
    """The largest value of the schedule, once it is found to be usable.

    Raises:
        ValueError: If JAX cannot trace the function, or a value is no finite number
            above 0 (a learning rate may be 0 for a while, but not always; a reward
            shift may have either sign).
    """
    has_sign = name != "reward_shift"
    progress = jnp.linspace(0.0, 1.0, _POINTS)
    example = f"{name}=lambda progress: 0.1 * (1 - progress)"
    try:
        values = np.asarray(jax.vmap(lambda p: value_at(schedule, p))(progress))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{name} is a function that JAX cannot trace ({reason}); write for example "
            f"{example}, with jnp.where in place of if"
        ) from error
    if values.shape != progress.shape:
        raise ValueError(
            f"{name} is a function whose value has the shape {values.shape[1:]}; "
            f"return a single number, as {example}"
        )
    is_low = values < 0 if name == "learning_rate" else values <= 0
    bad = ~np.isfinite(values) | (has_sign & is_low)
    if bad.any() or (has_sign and not values.max() > 0):
        place = int(bad.argmax())
        needed = "above 0" if has_sign else "finite"
        raise ValueError(
            f"{name} is a function whose value at a progress of "
            f"{float(progress[place]):.2f} is {values[place]:g}; it must be {needed}"
        )
    return float(values.max())


def describe_functions(schedules: Mapping[str, Schedule]) -> dict[str, str]:
    """What `config.json` says of each function: its name, file and line."""
    return {name: _describe(function) for name, function in schedules.items()}


def _describe(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return f"a Python function: {name}"
    file, line = Path(code.co_filename).name, code.co_firstlineno
    return f"a Python function: {name}, {file} line {line}"

"""Checks of a policy's description, which is JSON from a file.

Nothing here imports JAX.
"""

import math
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from pes_rl.agents import Policy
from pes_rl.run_folder.npz_fields import shown, wrong


def make_policy(path: Path, description: dict[str, Any]) -> Policy:
    """The policy that the description states.

    Args:
        path: The file that it comes from, for errors.
        description: The fields of `Policy`, as JSON has them: lists for tuples.

    Raises:
        ValueError: If a field is missing, unknown or wrong; it names the field.
    """
    known = [field.name for field in fields(Policy)]
    for name in description:
        if name not in known:
            raise ValueError(
                f"{path}: the policy has an unknown field {shown(name)}; a newer "
                "pes_rl may have written it: load it with that version"
            )
    for field in fields(Policy):
        name = field.name
        if name not in description:
            if field.default is not MISSING:
                continue
            raise ValueError(f"{path}: the policy has no field {name!r}")
        is_good, expected = _RULES[name]
        if not is_good(description[name]):
            holds = f"is {shown(description[name])}"
            raise wrong(path, f"the policy's {name}", holds, f"be {expected}")
    low, high = description["action_low"], description["action_high"]
    if len(low) != len(high) or any(a > b for a, b in zip(low, high, strict=True)):
        raise ValueError(
            f"{path}: the policy's action_low is {shown(low)} and its action_high "
            f"{shown(high)}; they must be as many, and no low above its high"
        )
    # JSON has lists only.
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description.items()
    }
    return Policy(**values)


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_bound(value: Any) -> bool:
    """A number, or infinity where the action space has no bound."""
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and not math.isnan(value)


def _is_list_of(is_good: Callable[[Any], bool], least: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) >= least and all(map(is_good, value))
    )


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "observation_size": (_is_size, "a whole number above 0"),
    "action_low": (_is_list_of(_is_bound, 1), "a list of numbers"),
    "action_high": (_is_list_of(_is_bound, 1), "a list of numbers"),
    "hidden_sizes": (_is_list_of(_is_size, 0), "a list of whole numbers above 0"),
    "bias": (_is_bool, "true or false"),
    "clip": (_is_bool, "true or false"),
}

"""Spaces of observations and actions as JSON, and checks of what a file holds of them.

A space is an object with its `kind`, such as "discrete", and the fields of its class in
`pes_rl.envs.spaces`. Nothing here imports JAX or Gymnasium.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from pes_rl.agents import Policy
from pes_rl.envs.spaces import (
    ActionSpace,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Spaces,
    Tuple,
)
from pes_rl.run_folder.npz_fields import shown, wrong

_KINDS: dict[str, type[Space]] = {
    "box": Box,
    "discrete": Discrete,
    "multi-discrete": MultiDiscrete,
    "multi-binary": MultiBinary,
    "tuple": Tuple,
    "dict": Dict,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_MAX_DEPTH = 32
"""Of spaces within spaces; more could exhaust Python's stack."""


def spaces_as_json(spaces: Spaces) -> dict[str, Any]:
    """The spaces as dictionaries, lists, texts and numbers."""
    sides = {"observation": spaces.observation, "action": spaces.action}
    return {
        side: None if space is None else _as_json(space)
        for side, space in sides.items()
    }


def _as_json(space: Space) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": _NAMES[type(space)]}
    for field in fields(space):
        value = getattr(space, field.name)
        if field.name == "spaces":
            value = [_as_json(part) for part in value]
        described[field.name] = list(value) if isinstance(value, tuple) else value
    return described


def read_spaces(path: Path, description: Any, policy: Policy) -> Spaces:
    """The spaces that the description in a file states.

    Args:
        path: The file that it comes from, for errors.
        description: What `spaces_as_json` returned; None where there is none.
        policy: Whose inputs and outputs must be as many as the spaces have.

    Raises:
        ValueError: If a field is missing, unknown or wrong; it names the field.
    """
    if description is None:
        return Spaces()
    what = "the policy's spaces"
    if not isinstance(description, dict) or set(description) != {
        "observation",
        "action",
    }:
        expected = "be an object with observation and action"
        raise wrong(path, what, f"is {shown(description)}", expected)
    sizes = {"observation": policy.observation_size, "action": policy.action_size}
    found: dict[str, Any] = dict.fromkeys(sizes)
    for side, size in sizes.items():
        if description[side] is None:
            continue
        name = f"{what}.{side}"
        space = found[side] = _read(path, name, description[side], 0)
        if side == "action" and not isinstance(space, ActionSpace):
            raise wrong(
                path, name, f"is a {_NAMES[type(space)]}", "be no tuple or dict"
            )
        if space.size != size:
            raise wrong(path, name, f"has {space.size} numbers", f"have {size}")
    return Spaces(**found)


def _read(path: Path, name: str, description: Any, depth: int) -> Space:
    if not isinstance(description, dict) or depth > _MAX_DEPTH:
        expected = f"be an object that describes a space, at most {_MAX_DEPTH} deep"
        raise wrong(path, name, f"is {shown(description)}", expected)
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        expected = f"be one of {', '.join(_KINDS)}"
        raise wrong(path, f"{name}.kind", f"is {shown(kind)}", expected)
    known = [field.name for field in fields(_KINDS[kind])]
    if set(description) != {"kind", *known}:
        holds = f"has the fields {shown(sorted(description))}"
        expected = f"have kind, {', '.join(known)}"
        raise wrong(path, name, holds, expected)
    values = {}
    for field in known:
        value = description[field]
        is_good, expected = _RULES.get(field) or _RULES[f"{kind}.{field}"]
        if not is_good(value):
            raise wrong(path, f"{name}.{field}", f"is {shown(value)}", f"be {expected}")
        if field == "spaces":
            value = [
                _read(path, f"{name}.spaces[{i}]", part, depth + 1)
                for i, part in enumerate(value)
            ]
        values[field] = tuple(value) if isinstance(value, list) else value
    for holds, expected in _disagreements(values):
        raise wrong(path, name, holds, expected)
    return _KINDS[kind](**values)


def _disagreements(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What fields of one space do not agree in: (what they hold, what they must)."""
    if "nvec" in values:
        count = math.prod(values["shape"])
        for field in ("nvec", "start"):
            if len(values[field]) != count:
                yield f"has {len(values[field])} numbers in {field}", f"have {count}"
    if "keys" in values and len(values["keys"]) != len(values["spaces"]):
        yield (
            f"has {len(values['keys'])} keys and {len(values['spaces'])} spaces",
            "have as many",
        )


def _is_whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value < 2**62


def _all(is_good: Callable[[Any], bool], most: float = math.inf) -> Callable[..., bool]:
    return lambda value: (
        isinstance(value, list) and len(value) <= most and all(map(is_good, value))
    )


def _is_key(value: Any) -> bool:
    return type(value) in (int, str)


_TYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "float32", "float64"),
)
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    # NumPy's arrays have at most 64 axes, one of which may be the batch's.
    "shape": (_all(_is_whole(0), 63), "a list of whole numbers, 63 at most"),
    "dtype": (lambda value: value in _TYPES, f"one of {', '.join(_TYPES)}"),
    "n": (_is_whole(1), "a whole number above 0"),
    "nvec": (_all(_is_whole(1)), "a list of whole numbers above 0"),
    "discrete.start": (_is_whole(-(2**62)), "a whole number"),
    "multi-discrete.start": (_all(_is_whole(-(2**62))), "a list of whole numbers"),
    "keys": (_all(_is_key), "a list of texts and whole numbers"),
    "spaces": (lambda value: isinstance(value, list), "a list of spaces"),
}

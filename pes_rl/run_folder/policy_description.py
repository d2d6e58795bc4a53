"""Checks of a policy's description, which is JSON from a file.

Nothing here imports JAX.
"""

import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from pes_rl.agents import GRUPolicy, Policy
from pes_rl.agents.activations import ACTIVATIONS
from pes_rl.run_folder.npz_fields import shown, wrong

_NETWORK = "network"
_KINDS: dict[str, type] = {"feed-forward": Policy, "gru": GRUPolicy}
"""Built-in policies; a description without a kind is of the first."""


def describe(policy: Any) -> dict[str, Any]:
    """What `make_policy` makes the policy of again, as JSON can hold it.

    A network of the user's is described by its name and sizes alone.
    """
    if isinstance(policy, Policy):
        return asdict(policy)
    if isinstance(policy, GRUPolicy):
        return {"kind": "gru", **asdict(policy)}
    return {"kind": _NETWORK, **{name: getattr(policy, name) for name in _OF_NETWORK}}


_OF_NETWORK = (
    "name",
    "num_parameters",
    "observation_size",
    "action_low",
    "action_high",
    "clip",
    "squash",
)


def make_policy(path: Path, description: dict[str, Any], network: Any = None) -> Any:
    """The policy that the description states.

    Args:
        path: The file that it comes from, for errors.
        description: What `describe` made, as JSON has it: lists for tuples.
        network: The user's network, where the policy is one.

    Raises:
        ValueError: If a field is missing, unknown or wrong, which it names; or if a
            network is needed, or is given where none is needed.
    """
    description = dict(description)
    kind = description.pop("kind", "feed-forward")
    if kind == _NETWORK:
        _check_fields(path, description, dict.fromkeys(_OF_NETWORK, True))
        return _make_network_policy(path, description, network)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(
            f"{path}: the policy's kind is {shown(kind)}, and this pes_rl knows "
            f"{', '.join(_KINDS)} and {_NETWORK}; load it with the version that wrote "
            "it"
        )
    if network is not None:
        raise ValueError(
            f"{path} holds a built-in policy ({kind}), which is loaded without your "
            "network; drop policy"
        )
    needed = {field.name: field.default is MISSING for field in fields(_KINDS[kind])}
    _check_fields(path, description, needed)
    try:
        return _KINDS[kind](**_with_tuples(description))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _make_network_policy(path: Path, description: dict[str, Any], network: Any) -> Any:
    name, num_parameters = description.pop("name"), description.pop("num_parameters")
    if network is None:
        raise ValueError(
            f"{path} holds the parameters of your own network {name}, and files hold "
            "no code; load it with pes_rl.load_policy(RUN, policy=...), giving what "
            "training was given"
        )
    from pes_rl.agents.networks.policy import make_network_policy

    policy = make_network_policy(name, network, **_with_tuples(description))
    if policy.num_parameters != num_parameters:
        raise ValueError(
            f"{path} holds {num_parameters} parameters of {name}, and the given policy "
            f"has {policy.num_parameters}; give the network that was trained"
        )
    return policy


def _check_fields(
    path: Path, description: dict[str, Any], needed: dict[str, bool]
) -> None:
    """Raise `ValueError` for a field that is wrong, unknown, or needed and missing."""
    for name in description:
        if name not in needed:
            raise ValueError(
                f"{path}: the policy has an unknown field {shown(name)}; a newer "
                "pes_rl may have written it: load it with that version"
            )
    for name, is_needed in needed.items():
        if name not in description:
            if not is_needed:
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


def _with_tuples(description: dict[str, Any]) -> dict[str, Any]:
    """The description with tuples for the lists of JSON."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description.items()
    }


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_activation(value: Any) -> bool:
    return isinstance(value, str) and value in ACTIVATIONS


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
    "squash": (_is_bool, "true or false"),
    "activation": (_is_activation, f"one of {', '.join(ACTIVATIONS)}"),
    "name": (_is_text, "a text"),
    "num_parameters": (_is_size, "a whole number above 0"),
}

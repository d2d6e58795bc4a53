"""Gymnasium environments made, and their spaces checked.

Worker processes load this file too; see `worker_program.py`.
"""

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec

from .results import describe

Maker = str | EnvSpec | Callable[..., gymnasium.Env]


def maker_name(maker: Maker) -> str:
    """Name of the environment that `maker` makes, for messages."""
    if isinstance(maker, str):
        return maker
    if isinstance(maker, EnvSpec):
        return maker.id
    return getattr(maker, "__qualname__", None) or repr(maker)


def find_spec(name: str) -> tuple[EnvSpec, str | None]:
    """The specification of a Gymnasium id, and the package that registers it.

    `gymnasium.spec` knows neither "package:Id" nor ids without a version, which
    `gymnasium.make` accepts.

    Raises:
        gymnasium.error.Error, ImportError: As by `gymnasium.make`.
    """
    package, _, env_id = name.rpartition(":")
    if package:
        importlib.import_module(package)
    namespace, base, version = registration.parse_env_id(env_id)
    if version is None:
        version = registration.find_highest_version(namespace, base)
        env_id = registration.get_env_id(namespace, base, version)
    return gymnasium.spec(env_id), package or None


def make_env(maker: Maker, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make an environment that a policy can act in.

    Raises:
        ValueError: If making it raises any error, a policy cannot return its actions,
            or its observations cannot be one vector.
    """
    if callable(maker) and not isinstance(maker, EnvSpec):
        try:
            env = maker(**env_kwargs)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{maker_name(maker)} cannot be made: {describe(error)}"
            ) from error
        if not isinstance(env, gymnasium.Env):
            raise ValueError(
                f"{maker!r} made a {type(env).__name__}; it must make one "
                "gymnasium.Env, as a class derived from it does"
            )
    else:
        try:
            env = gymnasium.make(maker, **env_kwargs)
        except (Exception, SystemExit) as error:
            known = isinstance(error, gymnasium.error.Error)
            raise ValueError(
                f"Gymnasium cannot make {maker_name(maker)!r}: "
                f"{error if known else describe(error)}"
            ) from error
    check_actions(getattr(env, "action_space", None))
    check_observations(getattr(env, "observation_space", None))
    return env


def check_actions(space: gymnasium.Space | None) -> None:
    """Raise `ValueError` if a policy cannot return the actions of this space."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"actions are {space}, but policies here return Box, Discrete, "
            "MultiDiscrete or MultiBinary; wrap the environment with "
            "gymnasium.wrappers.TransformAction, with a function that makes its action "
            "of one of them"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"actions are {space}, whole numbers, but a Box of actions here is "
            "continuous; wrap the environment with gymnasium.wrappers.TransformAction, "
            "with a float Box and a function that rounds, or with a MultiDiscrete"
        )
    if not space.shape or 0 in space.shape:
        raise ValueError(
            f"actions are {space} of shape {space.shape}, but policies here return a "
            "vector of at least one number; wrap the environment with "
            "gymnasium.wrappers.TransformAction, with a Box of shape (1,)"
        )


def check_observations(space: gymnasium.Space | None) -> None:
    """Raise `ValueError` if observations of this space cannot become one vector."""
    parts: list[Any] = [space]
    for part in parts:  # grows while it is walked through
        if isinstance(part, spaces.Dict | spaces.Tuple):
            inside = part.spaces
            parts += inside.values() if isinstance(inside, dict) else inside
        elif not isinstance(part, _FLATTENED):
            raise ValueError(
                f"observations are {space}, which cannot be one vector because of "
                f"{part}; wrap the environment with "
                "gymnasium.wrappers.TransformObservation, with a function that turns "
                "it into a Box, or leaves it out"
            )
    if spaces.flatdim(space) == 0:  # type: ignore[arg-type]  # None was refused above
        raise ValueError(
            f"observations are {space}, of no number, and a policy needs at least one; "
            "return a constant, such as 0, in a Box of shape (1,)"
        )


_FLATTENED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Spaces of observations that become vectors, beside `Dict` and `Tuple` of them."""

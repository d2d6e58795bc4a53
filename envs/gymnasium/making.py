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
from gymnasium.wrappers import FlattenObservation

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
    """Make an environment with continuous actions whose observation is one vector.

    Raises:
        ValueError: If making it raises any error, its actions are not a `Box`, or its
            observations are images or cannot be one vector.
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
    require_box(getattr(env, "action_space", None))
    if must_flatten(getattr(env, "observation_space", None)):
        return FlattenObservation(env)
    return env


def require_box(space: gymnasium.Space | None) -> spaces.Box:
    """The action space; raises `ValueError` if it is not a `Box` of real vectors."""
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"actions are {space}, but policies here are continuous; use an "
            "environment with a Box action space, such as gym:Pendulum-v1"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"actions are {space}, whole numbers, but policies here are continuous; "
            "wrap the environment with gymnasium.wrappers.TransformAction, with a "
            "float Box and a function that rounds"
        )
    if not space.shape or 0 in space.shape:
        raise ValueError(
            f"actions are {space} of shape {space.shape}, but policies here return a "
            "vector of at least one number; wrap the environment with "
            "gymnasium.wrappers.TransformAction, with a Box of shape (1,)"
        )
    return space


def must_flatten(space: gymnasium.Space | None) -> bool:
    """Whether observations must be flattened to become one vector.

    Raises:
        ValueError: If they cannot be flattened, or are images.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return False
    if isinstance(space, spaces.Box) and len(space.shape) > 1:
        raise ValueError(
            f"observations have shape {space.shape}, but policies here take one "
            "vector; wrap the environment so that it returns a vector of features"
        )
    if space is None or not space.is_np_flattenable:
        raise ValueError(
            f"observations are {space}, which cannot be one vector; wrap the "
            "environment so that its observations are a Box"
        )
    return True

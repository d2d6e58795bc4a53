"""Time limits of named environments, as far as they are known before one is made."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any


def time_limit(name: str, env_kwargs: Mapping[str, Any]) -> int | None:
    """Steps of the longest episode of a named environment; None if nobody says.

    Of `gym:ID` Gymnasium's registry says it, of `playground:NAME` its configuration, of
    `gymnax:NAME` its parameters, and of `jax:package:Name` an object, which is made for
    this. Packages are imported for it, which can take seconds and start JAX. All other
    names give None, because their default settings were made for their limits. What
    fails here fails again, with its own message, when the environment is made.

    Args:
        name: Of the environment, as for `make`.
        env_kwargs: Its keyword arguments.

    Returns:
        The time limit T in environment steps, or None.

    Example:
        >>> time_limit("gym:Pendulum-v1", {}), time_limit("jax:swimmer", {})
        (200, None)
    """
    family, _, task = name.partition(":")
    ask = {
        "gym": _of_gymnasium,
        "gymnax": _of_gymnax,
        "playground": _of_playground,
        "jax": _of_own,
    }.get(family)
    if ask is None:
        return None
    try:
        limit = ask(task, env_kwargs)
    except Exception:
        return None
    return int(limit) if isinstance(limit, Integral) and int(limit) > 0 else None


def _of_gymnasium(task: str, env_kwargs: Mapping[str, Any]) -> Any:
    from pes_rl.envs.gymnasium.making import find_spec

    return env_kwargs.get("max_episode_steps") or find_spec(task)[0].max_episode_steps


def _of_gymnax(task: str, env_kwargs: Mapping[str, Any]) -> Any:
    from pes_rl.envs.gymnax import GymnaxEnvironment

    return GymnaxEnvironment(task, env_kwargs).horizon


def _of_playground(task: str, env_kwargs: Mapping[str, Any]) -> Any:
    from pes_rl.envs.playground import configuration

    return configuration(task, None, env_kwargs).episode_length


def _of_own(task: str, env_kwargs: Mapping[str, Any]) -> Any:
    if ":" not in task:  # a task in closed form
        return None
    from pes_rl.envs.own import make_own

    return make_own(task, dict(env_kwargs)).horizon

"""Checks of the settings of a run: types, ranges, and settings that exclude others.

Every error is a `ValueError` that names the setting, its value, the rule, and what to
write instead.
"""

import json
import math
from dataclasses import MISSING, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pes_rl.agents import AGENT_NAMES, AGENTS
from pes_rl.agents.adaptive_sigma import ADAPTABLE
from pes_rl.agents.policy_names import check_policy_name, is_own_network
from pes_rl.agents.registry import settings_of
from pes_rl.envs.names import PYTHON_PREFIX, check_name, is_in_jax, unknown_name

if TYPE_CHECKING:
    from pes_rl.config.train_config import TrainConfig


def check_config(config: "TrainConfig") -> None:
    """Raise `ValueError` at the first setting that is wrong."""
    _check_types(config)
    _check_names(config)
    check_seed(config.seed)
    _check_ranges(config)
    _check_json_object(config.env_kwargs)
    _check_agent_options(config)
    _check_devices(config)
    _check_workers(config)
    if config.stop_at_threshold and config.threshold is None:
        raise ValueError(
            f"stop_at_threshold needs a threshold, and {config.env} has none of its "
            "own; set threshold"
        )


def check_seed(seed: int) -> None:
    """Raise `ValueError` for a seed that JAX would cut to another one's 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(
            f"seed={seed} must be from 0 to {2**32 - 1}; use such a number"
        )


def check_resumed(
    run: Path, before: "TrainConfig", after: "TrainConfig", logdir: str | None
) -> None:
    """Raise `ValueError` for a setting that a resumed run cannot change.

    Args:
        run: Folder of the run.
        before: Its settings so far.
        after: Those to continue with.
        logdir: The folder that was asked for, if any was.
    """
    if logdir is not None and Path(logdir).resolve() != run.resolve():
        raise ValueError(
            f"logdir={logdir!r} has no meaning with resume, which continues in the "
            "run's own folder; drop it"
        )
    if after.seed != before.seed:
        raise ValueError(
            f"seed={after.seed} has no meaning with resume: the random numbers of "
            f"{run} continue from seed {before.seed}; drop it, or start another run"
        )


@cache
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_types(config: "TrainConfig") -> None:
    """The type of every setting, and that every number is finite."""
    for name, hint in _type_hints(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, Real) and not _is_finite(value):
            raise ValueError(f"{name}={value} must be a finite number")
        is_union = get_origin(hint) in (Union, UnionType)
        kinds = get_args(hint) if is_union else (hint,)
        if not any(_is_of(value, kind) for kind in kinds):
            expected = " or ".join(map(_describe, kinds))
            raise ValueError(f"{name}={value!r} must be {expected}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number that no float holds.
        return False


def _is_of(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        of = get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_of(part, of) for part in value)
    if kind in (int, float):
        numbers = Integral if kind is int else Real
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list of whole numbers, such as [32, 32]"
    return _WORDS[kind]


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    NoneType: "None",
}


def _check_names(config: "TrainConfig") -> None:
    for env in (config.env, config.final_eval_env or config.env):
        check_name(env)
    check_policy_name(config.policy)
    if config.agent not in AGENT_NAMES:
        raise ValueError(unknown_name("agent", config.agent, list(AGENT_NAMES)))


def _check_ranges(config: "TrainConfig") -> None:
    for name in _POSITIVE:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} must be above 0")
    for name in ("adam_b1", "clipup_momentum"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(
                f"{name}={getattr(config, name)} must be at least 0 and below 1"
            )
    if config.clipup_max_speed is not None and config.optimizer != "clipup":
        raise ValueError(
            f"clipup_max_speed={config.clipup_max_speed} has no meaning for optimizer="
            f"{config.optimizer}; drop it, or use clipup"
        )
    if config.sigma_learning_rate is not None and config.final_sigma is not None:
        raise ValueError(
            f"final_sigma={config.final_sigma} is a schedule, and with "
            "sigma_learning_rate sigma adapts; drop one of them"
        )
    for name in ("weight_decay", "min_schedule_timesteps"):
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name}={getattr(config, name)} must be 0 or more")


def _check_devices(config: "TrainConfig") -> None:
    if config.devices < 0:
        raise ValueError(f"devices={config.devices} must be 0 (all) or more")
    if config.devices != 1 and not is_in_jax(config.env):
        raise ValueError(
            f"devices={config.devices} are for environments written in JAX (jax:, "
            f"brax:, ...), and {config.env} is stepped on the host; use "
            "num_threads for more of this machine's CPUs, workers (Ray) for more "
            "machines"
        )


def _check_workers(config: "TrainConfig") -> None:
    if config.workers < 0:
        raise ValueError(f"workers={config.workers} must be 0 (none) or more")
    if config.ray_address is not None and not config.workers:
        raise ValueError(
            f"ray_address={config.ray_address!r} has no meaning without workers; "
            "set workers"
        )
    if config.ray_address is not None and config.ray_address.startswith("ray://"):
        raise ValueError(
            f"ray_address={config.ray_address!r} is Ray Client's; start the training "
            "on a machine of the cluster, with auto or HOST:PORT"
        )
    if config.workers and (
        is_in_jax(config.env) or config.env.startswith(PYTHON_PREFIX)
    ):
        raise ValueError(
            f"workers={config.workers} are for environments that they can make by "
            f"name on the host, native MuJoCo and gym:ID; drop it for {config.env}"
        )
    if config.workers and is_own_network(config.policy):
        raise ValueError(
            f"workers={config.workers} run linear, mlp and gru policies; drop it for "
            f"{config.policy}"
        )


def _check_agent_options(config: "TrainConfig") -> None:
    """Raise `ValueError` where an option is missing or unused by the agent."""
    for option in fields(AGENTS[config.agent]):
        if option.default is MISSING and getattr(config, option.name) is None:
            raise ValueError(
                f"{option.name} is missing; {config.agent} needs one, "
                f"{_EXAMPLES[option.name]} for example"
            )
    unused = {field.name: field.default for field in fields(config)}
    for name, agents in _agents_with_option().items():
        value = getattr(config, name)
        if config.agent not in agents and value != unused[name]:
            raise ValueError(
                f"{name}={value} has no meaning for {config.agent}; drop it, or use "
                f"{', '.join(agents)}"
            )
    if config.agent == "random-search":
        _check_step_of_random_search(config)


def _check_step_of_random_search(config: "TrainConfig") -> None:
    goes_to_the_best = {
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "learning_rate_decay": "constant",
        "weight_decay": 0.0,
    }
    for name, needed in goes_to_the_best.items():
        if getattr(config, name) != needed:
            raise ValueError(
                f"{name}={getattr(config, name)} has no meaning for random-search, "
                f"whose step goes to the best parameters; use {needed}"
            )


def _agents_with_option() -> dict[str, list[str]]:
    """Names of the agents that use each option; options of all agents are left out."""
    agents: dict[str, list[str]] = {}
    for agent, kind in AGENTS.items():
        options = list(settings_of(kind))
        if "sigma" in options:
            options.append("final_sigma")
        if "sigma" in options and agent != "ars":  # which does it by itself
            options.append("normalize_returns")
        if kind in ADAPTABLE:
            options.append("sigma_learning_rate")
        for option in options:
            agents.setdefault(option, []).append(agent)
    return agents


_EXAMPLES = {
    "num_pairs": 10,
    "num_particles": 8,
    "truncation_length": 100,
    "noise_period": 200,
    "num_top_pairs": 5,
    "sigma": 0.1,
}

_POSITIVE = (
    "total_timesteps",
    "learning_rate",
    "sigma_learning_rate",
    "clipup_max_speed",
    "horizon",
    "shortest_horizon",
    "horizon_growth_episodes",
    "eval_interval",
    "eval_episodes",
    "final_eval_episodes",
    "log_interval",
    "checkpoint_interval",
    "video_interval",
    "video_length",
    "worker_timeout",
)


def _check_json_object(text: str) -> None:
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise ValueError(
            f"env_kwargs={text!r} is no JSON object; write for example "
            "'{\"frame_skip\": 5}'"
        )

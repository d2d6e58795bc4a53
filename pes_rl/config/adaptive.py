"""Defaults that depend on other settings: they fit what was given.

A setting that was given is never changed. What is found here is an ordinary setting of
the run, so `config.json` holds the number that was used.
"""

import json
import math
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from pes_rl.envs.time_limit import time_limit

if TYPE_CHECKING:
    from pes_rl.config.train_config import TrainConfig

FEW_UPDATES = 20
"""Updates below which a schedule that ends with them has a warning."""


def fit_defaults(
    defaults: Mapping[str, Any], given: Mapping[str, Any], horizon: int | None
) -> dict[str, Any]:
    """The settings of a run: the given ones, and defaults that fit them.

    - `truncation_length` is at most the horizon T, and cuts it into equal parts but for
      rounding: K = ceil(T / ceil(T / K_default)). Fewer steps than there are parts are
      then idle at the end of an episode.
    - `noise_period` is as many unrolls as it is by default.
    - `num_top_pairs` is at most `num_pairs`, and half of them where `fitness_shaping`
      needs one and the task has none.
    - `restart_at_once` is off where losses are shaped, sigma adapts or there is a
      critic, which exclude it, and `final_sigma` where sigma adapts.
    - `eval_interval` is at most a tenth of the budget, `checkpoint_interval` a quarter.
    - `log_interval` is at most an `eval_interval` of updates, because evaluations come
      with rows of the log.

    Args:
        defaults: All settings with a default.
        given: Those that the user chose; a bad value is left to the checks.
        horizon: Steps T of an episode; None where it is not known yet.

    >>> settings = {"truncation_length": 100, "total_timesteps": 9000}
    >>> fit_defaults({**settings, "eval_interval": 5000}, {}, 250)
    {'truncation_length': 84, 'total_timesteps': 9000, 'eval_interval': 900}
    """
    settings = {**defaults, **given}
    length = _whole(settings, "truncation_length")
    if length is not None and "truncation_length" not in given:
        if horizon is not None:
            length = math.ceil(horizon / math.ceil(horizon / length))
        settings["truncation_length"] = length
    period, usual = (_whole(defaults, n) for n in ("noise_period", "truncation_length"))
    if length is not None and period is not None and usual is not None:
        unrolls = max(period // usual, 1)
        settings["noise_period"] = given.get("noise_period", unrolls * length)
    _fit_exclusions(settings, given)
    _limit(settings, given, "num_top_pairs", _whole(settings, "num_pairs"))
    budget = _whole(settings, "total_timesteps")
    if budget is not None:
        _limit(settings, given, "eval_interval", max(budget // 10, 1))
        _limit(settings, given, "checkpoint_interval", max(budget // 4, 1))
    steps, interval = _unroll_steps(settings), _whole(settings, "eval_interval")
    if steps is not None and interval is not None:
        _limit(settings, given, "log_interval", max(interval // steps, 1))
    return settings


def _fit_exclusions(settings: dict[str, Any], given: Mapping[str, Any]) -> None:
    shaping = settings.get("fitness_shaping", "none")
    pairs = _whole(settings, "num_pairs")
    if shaping == "top-pairs" and settings.get("num_top_pairs") is None and pairs:
        settings["num_top_pairs"] = max(pairs // 2, 1)
    adapts = settings.get("sigma_learning_rate") is not None
    has_critic = settings.get("critic_discount") is not None
    excluded = shaping != "none" or adapts or has_critic
    if excluded and "restart_at_once" not in given:
        settings["restart_at_once"] = False
    if adapts and "final_sigma" not in given:
        settings["final_sigma"] = None


def known_horizon(env: str, settings: Mapping[str, Any]) -> int | None:
    """Steps of an episode, where settings or Gymnasium's registry say; else None.

    The environment is not made; a package that its name begins with is imported.
    """
    if settings.get("horizon") is not None:
        return _whole(settings, "horizon")
    if not env.startswith("gym:"):
        return None
    return ask_time_limit(env, settings.get("env_kwargs", "{}"))


def ask_time_limit(env: str, env_kwargs: str) -> int | None:
    """`pes_rl.envs.time_limit` with the setting `env_kwargs`, which may be bad."""
    try:
        options = json.loads(env_kwargs)
        return time_limit(env, options) if isinstance(options, dict) else None
    except (TypeError, ValueError):
        return None


def must_ask(env: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether a default depends on a time limit that only the environment knows.

    Args:
        env: Name of the environment.
        settings: All settings of the run.
        given: Those that the user chose.
    """
    is_own = env.startswith("jax:") and env.count(":") > 1
    return (
        (is_own or env.startswith(("gymnax:", "playground:")))
        and settings.get("truncation_length") is not None
        and given.get("truncation_length") is None
        and settings.get("horizon") is None
    )


def budget_warning(config: "TrainConfig", steps_per_update: int) -> str | None:
    """A sentence about a budget that is too short for what it is to hold, if it is.

    Args:
        config: The settings of the run.
        steps_per_update: Environment steps that one update simulates, at most.
    """
    budget, steps = config.total_timesteps, steps_per_update
    if budget < steps:
        return (
            f"total_timesteps={budget:,} is less than one update, which simulates up "
            f"to {steps:,} environment steps; one update is taken"
        )
    is_scheduled = (
        config.learning_rate_decay != "constant"
        or config.final_sigma is not None
        or config.final_reward_shift is not None
    )
    if not is_scheduled:
        return None
    updates = -(-budget // steps)
    if config.min_schedule_timesteps > budget:
        share = budget / config.min_schedule_timesteps
        return (
            f"the budget ends at {share:.0%} of the schedules of learning rate, sigma "
            "and reward shift, which are made for "
            f"{config.min_schedule_timesteps:,} environment steps or more "
            "(min_schedule_timesteps)"
        )
    if updates < FEW_UPDATES:
        return (
            f"total_timesteps={budget:,} are some {updates} updates, in which the "
            "schedules end; give the run more, or set "
            f"min_schedule_timesteps to {FEW_UPDATES * steps:,} or more"
        )
    return None


def _limit(
    settings: dict[str, Any], given: Mapping[str, Any], name: str, limit: int | None
) -> None:
    value = _whole(settings, name)
    if name not in given and value is not None and limit is not None:
        settings[name] = min(value, limit)


def _unroll_steps(settings: Mapping[str, Any]) -> int | None:
    """Environment steps N K of an update; None for agents that play whole episodes."""
    length, pairs, particles = (
        _whole(settings, name)
        for name in ("truncation_length", "num_pairs", "num_particles")
    )
    count = particles if pairs is None else 2 * pairs
    return None if length is None or count is None else length * count


def _whole(settings: Mapping[str, Any], name: str) -> int | None:
    """The setting, if it is a whole number above 0 of a usual size; else None."""
    value = settings.get(name)
    if not isinstance(value, Integral) or isinstance(value, bool):
        return None
    number = int(value)
    return number if 0 < number < 2**63 else None

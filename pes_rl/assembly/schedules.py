"""Schedules of a run, from its settings and the user's functions."""

from collections.abc import Mapping

from pes_rl.config.train_config import TrainConfig
from pes_rl.learner.schedules import Schedule, linear


def schedule_steps(config: TrainConfig, schedules: Mapping[str, Schedule]) -> int:
    """Environment steps over which schedules go; functions go over the budget."""
    if schedules:
        return config.total_timesteps
    return max(config.total_timesteps, config.min_schedule_timesteps)


def reward_shift_schedule(
    config: TrainConfig, schedules: Mapping[str, Schedule]
) -> Schedule | None:
    """What the reward shift follows; None where it stays.

    Raises:
        ValueError: If the agent compares losses of different updates.
    """
    schedule = schedules.get("reward_shift")
    if config.final_reward_shift is not None:
        schedule = linear(config.reward_shift, config.final_reward_shift)
    if schedule is not None and config.agent == "random-search":
        raise ValueError(
            "random-search compares returns of different updates, whose reward_shift "
            "must be the same; use a single number, without final_reward_shift"
        )
    return schedule

"""Rollouts by Ray workers, from the settings of a run."""

from dataclasses import replace
from functools import partial
from typing import Any

from pes_rl.assembly.factories import (
    episode_steps,
    make_environment,
    make_rollout,
    make_varying_horizon,
)
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import HostRollout


def make_ray_rollout(config: TrainConfig, policy: Any, environment: Any) -> Any:
    """Make the rollout of training by Ray workers, which make their environments.

    Raises:
        ValueError: If Ray is not installed, or there is no cluster at the address.
    """
    try:
        from pes_rl.envs.ray.cluster import connect
        from pes_rl.envs.ray.pool import RayWorkerPool
        from pes_rl.envs.ray.rollout import RayRollout
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ValueError(
            f"workers={config.workers} need Ray: pip install 'pes-rl[ray]'; "
            "or drop workers"
        ) from None
    config, horizon = worker_config(config), episode_steps(config, environment)
    connect(config.ray_address, config.workers * config.num_threads)
    pool = RayWorkerPool(
        partial(_make_worker_rollout, config, policy),
        config.workers,
        config.num_threads,
        config.worker_timeout,
    )
    varying = make_varying_horizon(config, horizon)
    return RayRollout(pool, horizon, environment.can_copy, varying)


def worker_config(config: TrainConfig) -> TrainConfig:
    """The settings with which a worker makes its simulations: one thread by default."""
    if not config.workers:
        return config
    return replace(config, num_threads=config.num_threads or 1)


def _make_worker_rollout(config: TrainConfig, policy: Any) -> Any:
    """Make the object that a worker holds."""
    from pes_rl.envs.ray.worker_rollout import WorkerRollout

    environment = make_environment(config, config.env, config.sample_actions)
    varying = make_varying_horizon(config, episode_steps(config, environment))
    rollout = make_rollout(config, environment, policy, config.reward_shift, varying)
    assert isinstance(rollout, HostRollout)  # the settings refuse all others
    return WorkerRollout(rollout)

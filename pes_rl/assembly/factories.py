"""Factories of a run's objects: environment, policy, rollout, estimator."""

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from pes_rl.agents import AGENTS, Estimator, Policy
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import (
    DeviceRollout,
    HostRollout,
    PolicyProblem,
    Rollout,
    UnrolledProblem,
    make,
)
from pes_rl.envs.names import is_unrolled
from pes_rl.envs.rollout.horizons import VaryingHorizon
from pes_rl.envs.spaces import ActionSpace, Spaces
from pes_rl.runtime.multihost import check_jax_backend


def make_environment(
    config: TrainConfig, name: str, sample_actions: bool = False
) -> Any:
    """Make the named environment or unrolled problem, with options of the settings.

    Args:
        config: The settings.
        name: Of the environment, which may be another than that of the training.
        sample_actions: For training alone; evaluations take the best of the choices.

    Raises:
        ValueError: If it cannot be made with them.
    """
    check_jax_backend()
    options = json.loads(config.env_kwargs)
    if is_unrolled(name) and config.horizon is not None:
        # The problem's own schedules depend on it.
        options["horizon"] = config.horizon
    return make(
        name,
        num_threads=config.num_threads,
        backend=config.backend,
        env_kwargs=options,
        vectorization=config.vectorization,
        sample_actions=sample_actions,
    )


def make_policy(config: TrainConfig, environment: Any) -> Policy:
    """Make the policy of the settings, with the sizes of the environment.

    Raises:
        ValueError: If it is an unrolled problem, which has none.
    """
    if isinstance(environment, UnrolledProblem):
        raise ValueError(
            f"{config.env} has parameters of its own and no policy; use it with "
            "pes_rl.train, pes_rl.evaluate and pes_rl.compare"
        )
    return Policy(
        observation_size=environment.observation_size,
        action_low=tuple(np.asarray(environment.action_low).tolist()),
        action_high=tuple(np.asarray(environment.action_high).tolist()),
        hidden_sizes=config.hidden_sizes if config.policy == "mlp" else (),
        bias=config.bias,
        clip=config.clip_actions,
    )


def spaces_of(environment: Any) -> Spaces:
    """The environment's own observations and actions; vectors for most of them."""
    return getattr(environment, "spaces", Spaces())


def fits(policy: Policy, environment: Any, action: ActionSpace | None) -> bool:
    """Whether the environment has the observations and actions of the policy.

    Args:
        policy: The policy.
        environment: The environment.
        action: The space of the policy's actions, as in `Spaces`.
    """
    if isinstance(environment, UnrolledProblem):
        return False
    own = spaces_of(environment).action
    return (
        (action is None or own is None or action == own)
        and policy.observation_size == environment.observation_size
        and policy.action_low == tuple(np.asarray(environment.action_low).tolist())
        and policy.action_high == tuple(np.asarray(environment.action_high).tolist())
    )


def make_rollout(
    config: TrainConfig,
    environment: Any,
    act: Callable[[Any, Any], Any],
    reward_shift: float = 0.0,
    varying_horizon: VaryingHorizon | None = None,
) -> Rollout:
    """Make the rollout of `act` in the environment, on the device or on the host."""
    horizon = episode_steps(config, environment)
    loss = config.diverged_loss or 0.0
    if environment.on_device:
        problem = PolicyProblem(environment, act, reward_shift)
        return DeviceRollout(problem, horizon, loss, varying_horizon=varying_horizon)
    return HostRollout(environment, act, horizon, loss, reward_shift, varying_horizon)


def make_varying_horizon(
    config: TrainConfig, horizon: int | None
) -> VaryingHorizon | None:
    """Make the time limits of training episodes that differ; None if all are equal.

    Raises:
        ValueError: If the shortest is longer than `horizon`, or episodes never end.
    """
    if config.shortest_horizon is None:
        return None
    if horizon is None:
        raise ValueError(
            f"shortest_horizon={config.shortest_horizon} needs a longest one; set "
            "horizon too"
        )
    return VaryingHorizon(
        config.shortest_horizon,
        horizon,
        config.horizon_schedule,
        config.horizon_growth_episodes,
    )


def episode_steps(config: TrainConfig, environment: Any) -> int:
    """Steps T after which an episode in the environment is cut.

    Raises:
        ValueError: If neither the settings nor the environment say.
    """
    horizon = config.horizon or environment.horizon
    if horizon is None:
        raise ValueError(f"{config.env} has no time limit; set horizon, to 1000 say")
    return horizon


def make_evaluation_rollout(
    config: TrainConfig, problem: UnrolledProblem
) -> DeviceRollout:
    """Make the rollout of an evaluation, whose episodes always end."""
    steps = problem.evaluation_steps
    return DeviceRollout(problem.system, steps, diverged_loss(config, problem))


def diverged_loss(config: TrainConfig, problem: UnrolledProblem) -> float:
    """Loss of the step at which a simulation of the problem diverges."""
    if config.diverged_loss is None:
        return problem.diverged_loss
    return config.diverged_loss


def make_estimator(config: TrainConfig) -> Estimator:
    """Make the gradient estimator; its fields are settings of the same names."""
    kind = AGENTS[config.agent]
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind)})

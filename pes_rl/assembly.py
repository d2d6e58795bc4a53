"""Puts a run together from its settings: environment, policy, estimator, learner."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pes_rl.agents import AGENTS, Estimator, Policy
from pes_rl.config import TrainConfig
from pes_rl.envs import (
    DeviceRollout,
    HostRollout,
    ObservationMoments,
    PolicyProblem,
    Rollout,
    make,
)
from pes_rl.envs.gymnasium_family import GymnasiumEnvironment
from pes_rl.learner import Learner, Step


@dataclass(frozen=True)
class Environments:
    """Two like environments, so that training and evaluation share no simulations."""

    training: Any
    evaluation: Any


@dataclass(frozen=True)
class Assembly:
    """The parts of a run.

    Attributes:
        policy: The policy.
        learner: Trains it.
        evaluation: A rollout of its own, so that evaluation and training never share
            simulations.
        final_evaluation: The same, or one in the environment of the last evaluation.
        vectorization: How Gymnasium simulations are stepped, in words; None elsewhere.
    """

    policy: Policy
    learner: Learner
    evaluation: Rollout
    final_evaluation: Rollout
    vectorization: str | None


def assemble(config: TrainConfig, environments: Environments | None = None) -> Assembly:
    """Make the parts of a run, in the environments that it names or these.

    Raises:
        ValueError: If the settings do not fit the environment.
    """
    if environments is None:
        environments = Environments(
            make_environment(config, config.env), make_environment(config, config.env)
        )
    environment, twin = environments.training, environments.evaluation
    policy = make_policy(config, environment)
    is_gymnasium = isinstance(environment, GymnasiumEnvironment)
    learner = Learner(
        make_rollout(config, environment, policy.act, config.reward_shift),
        make_estimator(config),
        Step(
            config.optimizer,
            config.learning_rate,
            config.learning_rate_decay,
            config.normalize_returns,
            config.weight_decay,
        ),
        config.total_timesteps,
        config.final_sigma,
        ObservationMoments.empty(policy.observation_size)
        if config.normalize_observations
        else None,
        (lambda: environment.dragged_steps) if is_gymnasium else None,
    )
    if make_policy(config, twin) != policy:
        raise ValueError(
            "the environment for evaluation has other observations or actions than "
            "that for training; use one with the same"
        )
    evaluation = final = make_rollout(config, twin, policy.act)
    if config.final_eval_env is not None:
        other = make_environment(config, config.final_eval_env)
        if make_policy(config, other) != policy:
            raise ValueError(
                f"final_eval_env={config.final_eval_env!r} has other observations or "
                f"actions than {config.env}; use one with the same, or None"
            )
        final = make_rollout(config, other, policy.act)
    vectorization = environment.vectorization if is_gymnasium else None
    return Assembly(policy, learner, evaluation, final, vectorization)


def make_environment(config: TrainConfig, name: str) -> Any:
    """The named environment, with the settings' options.

    Raises:
        ValueError: If it cannot be made with them.
    """
    return make(
        name,
        num_threads=config.num_threads,
        backend=config.backend,
        env_kwargs=json.loads(config.env_kwargs),
        vectorization=config.vectorization,
    )


def make_policy(config: TrainConfig, environment: Any) -> Policy:
    """The policy that the settings ask for, with the environment's sizes."""
    return Policy(
        observation_size=environment.observation_size,
        action_low=tuple(np.asarray(environment.action_low).tolist()),
        action_high=tuple(np.asarray(environment.action_high).tolist()),
        hidden_sizes=config.hidden_sizes if config.policy == "mlp" else (),
        bias=config.bias,
        clip=config.clip_actions,
    )


def make_rollout(
    config: TrainConfig,
    environment: Any,
    act: Callable[[Any, Any], Any],
    reward_shift: float = 0.0,
) -> Rollout:
    """The rollout of `act` in the environment, by the driver that it needs."""
    horizon = config.horizon or environment.horizon
    if horizon is None:
        raise ValueError(f"{config.env} has no time limit; set horizon, to 1000 say")
    if environment.on_device:
        problem = PolicyProblem(environment, act, reward_shift)
        return DeviceRollout(problem, horizon, config.diverged_loss)
    return HostRollout(environment, act, horizon, config.diverged_loss, reward_shift)


def make_estimator(config: TrainConfig) -> Estimator:
    """The gradient estimator that the settings ask for; its fields are options."""
    kind = AGENTS[config.agent]
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind)})

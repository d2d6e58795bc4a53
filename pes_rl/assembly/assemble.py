"""Assembly of a run from its settings: environments, policy, estimator, learner."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from pes_rl.agents import Estimator, MaskedPolicy
from pes_rl.assembly.assembly import Assembly, Environments
from pes_rl.assembly.factories import (
    diverged_loss,
    episode_steps,
    fits,
    make_environment,
    make_estimator,
    make_evaluation_rollout,
    make_policy,
    make_rollout,
    make_varying_horizon,
    spaces_of,
)
from pes_rl.assembly.ray import make_ray_rollout, worker_config
from pes_rl.assembly.schedules import reward_shift_schedule, schedule_steps
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import (
    DeviceRollout,
    ObservationMoments,
    Rollout,
    UnrolledProblem,
)
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.rollout.sharding import shard
from pes_rl.envs.spaces import ActionSpace, Spaces
from pes_rl.learner.evaluation import Evaluator, make_evaluator
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.learner.schedules import Schedule, describe_functions
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
    make_trained,
)


def assemble(
    config: TrainConfig,
    environments: Environments | None = None,
    network: Any = None,
    schedules: Mapping[str, Schedule] | None = None,
) -> Assembly:
    """Make the objects of a run.

    Args:
        config: The settings.
        environments: None makes those that the settings name.
        network: The network of the policy; None takes what the settings name.
        schedules: Functions that `learning_rate`, `sigma` or `reward_shift` follow, in
            place of what the settings say of them.

    Raises:
        ValueError: If the settings do not fit the environment.
    """
    if environments is None:
        training = make_environment(
            worker_config(config), config.env, config.sample_actions
        )
        # Environments in JAX are pure functions, which hold no simulations.
        shared = isinstance(training, UnrolledProblem) or training.on_device
        evaluation = training if shared else make_environment(config, config.env)
        environments = Environments(training, evaluation)
    if isinstance(environments.training, UnrolledProblem):
        assembly = _assemble_problem(config, environments.training, schedules or {})
    else:
        assembly = _assemble_policy(config, environments, network, schedules or {})
    return replace(assembly, functions=describe_functions(schedules or {}))


def _assemble_policy(
    config: TrainConfig,
    environments: Environments,
    network: Any,
    schedules: Mapping[str, Schedule],
) -> Assembly:
    _check_network_options(config)
    environment = environments.training
    policy = make_policy(config, environment, network)
    others = []
    if config.final_eval_env is not None:
        others.append(make_environment(config, config.final_eval_env))
    spaces = spaces_of(environment)
    evaluation, final = _evaluation_rollouts(
        config, environments.evaluation, policy, spaces.action, *others
    )
    observations = None
    if config.normalize_observations:
        observations = ObservationMoments.empty(policy.observation_size)
    is_gymnasium = isinstance(environment, GymnasiumEnvironment)
    idle_steps = (lambda: environment.idle_steps) if is_gymnasium else None
    shift = reward_shift_schedule(config, schedules)
    unscheduled = config
    if shift is not None:  # The learner subtracts it.
        unscheduled = replace(config, reward_shift=0.0, final_reward_shift=None)
    if config.workers:
        rollout = make_ray_rollout(unscheduled, policy, environment)
    else:
        varying = make_varying_horizon(config, episode_steps(config, environment))
        rollout = make_rollout(
            config, environment, policy, unscheduled.reward_shift, varying
        )
    evaluate, evaluate_finally = _evaluators(config, evaluation, final)
    return Assembly(
        init_theta=policy.init,
        describe=partial(_describe_policy, policy, spaces),
        learner=_make_learner(
            config,
            rollout,
            make_estimator(config),
            schedules,
            observations,
            idle_steps,
            shift,
        ),
        evaluate=evaluate,
        evaluate_finally=evaluate_finally,
        horizon=evaluation.horizon,
        vectorization=environment.vectorization if is_gymnasium else None,
        pool=getattr(rollout, "pool", None),
        environments=(environment, environments.evaluation, *others),
    )


def _check_network_options(config: TrainConfig) -> None:
    """Raise `ValueError` for an option that the policy has no use for."""
    for name, used_by in _FOR_NETWORKS.items():
        if _is_set(config, name) and config.policy not in used_by:
            raise ValueError(
                f"{name}={getattr(config, name)!r} has no meaning for a "
                f"{config.policy} policy; set policy to {' or '.join(used_by)}, or "
                "drop it"
            )


_FOR_NETWORKS = {"hidden_sizes": ("mlp", "gru"), "activation": ("mlp",)}


def _evaluation_rollouts(
    config: TrainConfig,
    environment: Any,
    policy: Any,
    action: ActionSpace | None,
    other: Any = None,
) -> tuple[Rollout, Rollout]:
    """Rollouts of the evaluations during training and of the final one (in `other`)."""
    if not fits(policy, environment, action):
        raise ValueError(
            "the environment for evaluation has other observations or actions than "
            "that for training; use one with the same"
        )
    during = make_rollout(config, environment, policy)
    if other is None:
        return during, during
    if not fits(policy, other, action):
        raise ValueError(
            f"final_eval_env={config.final_eval_env!r} has other observations or "
            f"actions than {config.env}; use one with the same, or None"
        )
    return during, make_rollout(config, other, policy)


def _evaluators(
    config: TrainConfig,
    during: Rollout,
    final: Rollout,
    meta_loss: Literal["sum", "last"] = "sum",
) -> tuple[Evaluator, Evaluator]:
    """Evaluators during training and at its end; equal ones are compiled once."""
    evaluate = make_evaluator(during, config.eval_episodes, meta_loss)
    if final is during and config.final_eval_episodes == config.eval_episodes:
        return evaluate, evaluate
    return evaluate, make_evaluator(final, config.final_eval_episodes, meta_loss)


def _assemble_problem(
    config: TrainConfig, problem: UnrolledProblem, schedules: Mapping[str, Schedule]
) -> Assembly:
    for name in _FOR_POLICIES:
        if _is_set(config, name) or name in schedules:
            raise ValueError(
                f"{name}={getattr(config, name)!r} has no meaning for {config.env}, "
                "which has no policy; drop it"
            )
    loss = diverged_loss(config, problem)
    varying = make_varying_horizon(config, problem.horizon)
    rollout = DeviceRollout(
        problem.system, problem.horizon, loss, varying_horizon=varying
    )
    evaluation = make_evaluation_rollout(config, problem)
    evaluate, evaluate_finally = _evaluators(
        config, evaluation, evaluation, problem.meta_loss
    )
    return Assembly(
        init_theta=problem.init_theta,
        describe=partial(_describe_parameters, problem),
        learner=_make_learner(
            config, rollout, make_estimator(config, problem.search_bounds), schedules
        ),
        evaluate=evaluate,
        evaluate_finally=evaluate_finally,
        horizon=evaluation.horizon,
    )


_FOR_POLICIES = (
    "policy",
    "bias",
    "observation_mask",
    "hidden_sizes",
    "activation",
    "clip_actions",
    "squash_actions",
    "normalize_observations",
    "reward_shift",
    "final_reward_shift",
    "final_eval_env",
    "critic_discount",
)


def _is_set(config: TrainConfig, name: str) -> bool:
    return getattr(config, name) != TrainConfig.__dataclass_fields__[name].default


def _describe_policy(
    policy: Any,
    spaces: Spaces,
    theta: jax.Array,
    observations: ObservationMoments | None,
) -> TrainedPolicy:
    moments = observations or ObservationMoments.empty(policy.observation_size)
    arrays = np.asarray(moments.mean), np.asarray(moments.std)
    if isinstance(policy, MaskedPolicy):
        return make_trained(*policy.unmask(theta), *arrays, spaces=spaces)
    return make_trained(policy, np.asarray(theta), *arrays, spaces=spaces)


def _describe_parameters(
    problem: UnrolledProblem, theta: jax.Array, observations: ObservationMoments | None
) -> TrainedParameters:
    del observations
    return TrainedParameters(problem.parameter_names, np.asarray(theta))


def _make_learner(
    config: TrainConfig,
    rollout: Rollout,
    estimator: Estimator,
    schedules: Mapping[str, Schedule],
    observations: ObservationMoments | None = None,
    idle_steps: Callable[[], int] | None = None,
    reward_shift: Schedule | None = None,
) -> Learner:
    step = OptimizerConfig(
        config.optimizer,
        schedules.get("learning_rate", config.learning_rate),
        config.learning_rate_decay,
        config.normalize_returns,
        config.weight_decay,
        config.adam_b1,
        config.clipup_max_speed,
        config.clipup_momentum,
    )
    name = "num_particles" if config.num_pairs is None else "num_pairs"
    return Learner(
        shard(rollout, config.devices, name, getattr(config, name)),
        estimator,
        step,
        schedule_steps(config, schedules),
        schedules.get("sigma", config.final_sigma),
        observations,
        idle_steps,
        reward_shift,
    )

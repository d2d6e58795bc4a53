"""Factories of a run's objects: environment, policy, rollout, estimator."""

import json
from typing import Any

import numpy as np

from pes_rl.agents import (
    AGENTS,
    AdaptiveSigma,
    Estimator,
    GRUPolicy,
    MaskedPolicy,
    Policy,
)
from pes_rl.agents.policy_names import import_network, is_own_network
from pes_rl.agents.registry import settings_of
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import (
    CarryingEnvironment,
    DeviceRollout,
    HostRollout,
    PolicyProblem,
    RecurrentHostRollout,
    RecurrentProblem,
    Rollout,
    UnrolledProblem,
    make,
)
from pes_rl.envs.names import PYTHON_PREFIX, is_in_jax, is_unrolled
from pes_rl.envs.observation_mask import visible_entries
from pes_rl.envs.rollout.horizons import VaryingHorizon
from pes_rl.envs.spaces import ActionSpace, Spaces
from pes_rl.runtime.multihost import check_jax_backend


def make_environment(
    config: TrainConfig, name: str, sample_actions: bool = False
) -> Any:
    """Make the named environment or unrolled problem, with options of the settings.

    Args:
        config: The settings.
        name: Of the environment, which may be another than that of the training; it
            gets the options that are for the training's family of environments alone
            where it is of the same family.
        sample_actions: For training alone; evaluations take the best of the choices.

    Raises:
        ValueError: If it cannot be made with them.
    """
    check_jax_backend()
    of_family = family_options(config, name)
    options = json.loads(of_family["env_kwargs"])
    if is_unrolled(name) and config.horizon is not None:
        # The problem's own schedules depend on it.
        options["horizon"] = config.horizon
    return make(
        name,
        num_threads=config.num_threads,
        **{**of_family, "env_kwargs": options},
        sample_actions=sample_actions,
    )


def family_options(config: TrainConfig, name: str) -> dict[str, Any]:
    """The settings of the run that are for one family of environments.

    Their defaults where the named environment is of another family than the run's.
    """
    names = ("env_kwargs", "backend", "vectorization")
    if _family(name) == _family(config.env):
        return {option: getattr(config, option) for option in names}
    of_class = TrainConfig.__dataclass_fields__
    return {option: of_class[option].default for option in names}


def _family(name: str) -> str:
    """The part of the name before the first colon; native tasks have none."""
    family, colon, task = name.partition(":")
    if not colon:
        return ""
    if family == "jax" and ":" in task:
        return "jax:PACKAGE"
    is_gymnasium = name.startswith(PYTHON_PREFIX) and not is_in_jax(name)
    return "gym" if is_gymnasium else family


def make_policy(config: TrainConfig, environment: Any, network: Any = None) -> Any:
    """Make the policy of the settings, with the sizes of the environment.

    Args:
        config: The settings.
        environment: The environment that it acts in.
        network: The network that `policy="python:Name"` stands for; `package:Name` is
            imported.

    Returns:
        A policy that has a carry where it has `initial_carry`.

    Raises:
        ValueError: If it is an unrolled problem, which has none, or if the network or
            the mask of observations does not fit.
    """
    if isinstance(environment, UnrolledProblem):
        raise ValueError(
            f"{config.env} has parameters of its own and no policy; use it with "
            "pes_rl.train, pes_rl.evaluate and pes_rl.compare"
        )
    size = environment.observation_size
    visible = tuple(range(size))
    if config.observation_mask is not None:
        visible = visible_entries(config.observation_mask, size, config.env)
    common: dict[str, Any] = {
        "observation_size": len(visible),
        "action_low": tuple(np.asarray(environment.action_low).tolist()),
        "action_high": tuple(np.asarray(environment.action_high).tolist()),
        "clip": config.clip_actions,
        "squash": config.squash_actions,
    }
    if len(visible) < size and config.policy not in ("linear", "mlp"):
        raise ValueError(
            f"observation_mask is for linear and mlp policies, and this is "
            f"{config.policy}; drop it, or leave the entries out in the environment"
        )
    if is_own_network(config.policy):
        from pes_rl.agents.networks.policy import make_network_policy

        if network is None:
            network = own_network(config)
        return make_network_policy(config.policy, network, **common)
    common["bias"] = config.bias
    if config.policy == "gru":
        return GRUPolicy(hidden_sizes=config.hidden_sizes, **common)
    hidden_sizes = config.hidden_sizes if config.policy == "mlp" else ()
    policy = Policy(hidden_sizes=hidden_sizes, activation=config.activation, **common)
    return policy if len(visible) == size else MaskedPolicy(policy, visible, size)


def own_network(config: TrainConfig) -> Any:
    """The user's network that the settings name, imported; None where there is none."""
    return import_network(config.policy) if is_own_network(config.policy) else None


def spaces_of(environment: Any) -> Spaces:
    """The environment's own observations and actions; vectors for most of them."""
    return getattr(environment, "spaces", Spaces())


def fits(policy: Any, environment: Any, action: ActionSpace | None) -> bool:
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
    policy: Any,
    reward_shift: float = 0.0,
    varying_horizon: VaryingHorizon | None = None,
) -> Rollout:
    """Make the rollout of a policy in the environment, on the device or on the host.

    Args:
        config: The settings.
        environment: The environment.
        policy: Has `act` and, where that takes a carry, `initial_carry`.
        reward_shift: Subtracted from every reward.
        varying_horizon: Time limits that differ between episodes.
    """
    horizon = episode_steps(config, environment)
    loss = config.diverged_loss or 0.0
    act, initial_carry = policy.act, getattr(policy, "initial_carry", None)
    if initial_carry is not None:
        if environment.on_device:
            recurrent = RecurrentProblem(
                environment, act, reward_shift, initial_carry=initial_carry
            )
            return DeviceRollout(
                recurrent, horizon, loss, varying_horizon=varying_horizon
            )
        carrying = CarryingEnvironment(environment, initial_carry)
        return RecurrentHostRollout(
            carrying, act, horizon, loss, reward_shift, varying_horizon
        )
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
        raise ValueError(
            f"{config.env} has no time limit; set horizon (--horizon 1000, for example)"
        )
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


def make_estimator(
    config: TrainConfig, search_bounds: tuple[Any, Any] | None = None
) -> Estimator:
    """Make the gradient estimator; its fields are settings of the same names.

    Args:
        config: The settings.
        search_bounds: Bounds of random search without a `search_radius`.
    """
    kind = AGENTS[config.agent]
    options = {name: getattr(config, name) for name in settings_of(kind)}
    if config.agent == "random-search" and config.search_radius is None:
        options["search_bounds"] = search_bounds
    if config.sigma_learning_rate is None:
        return kind(**options)
    return AdaptiveSigma(kind(**options), config.sigma_learning_rate)

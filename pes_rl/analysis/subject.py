"""The subject of a measurement: a problem at a fixed theta, and agents on it."""

import json
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents import AGENT_NAMES, AGENTS, Estimator
from pes_rl.analysis.linear_blocks import REGIMES, LinearBlocks
from pes_rl.assembly.factories import (
    make_environment,
    make_evaluation_rollout,
    make_policy,
    make_rollout,
)
from pes_rl.config.defaults import task_defaults
from pes_rl.config.train_config import make_config
from pes_rl.envs import Rollout, UnrolledProblem
from pes_rl.envs.names import unknown_name


@dataclass(frozen=True)
class Subject:
    """A problem and the theta at which it is measured.

    Attributes:
        env: Its name.
        problem: The unrolled problem; None for a policy in an environment.
        rollout: Where particles live; every episode has an end.
        theta: # shape=(D,), dtype=float32
    """

    env: str
    problem: UnrolledProblem | None
    rollout: Rollout
    theta: jax.Array

    @property
    def horizon(self) -> int:
        """Steps T of the longest episode."""
        assert self.rollout.horizon is not None
        return self.rollout.horizon


@dataclass(frozen=True)
class Measurement:
    """Options of a study that measures agents' estimates at a fixed theta."""

    env: str = "unrolled:toy-regression"
    """A problem as for training, or linear:identical, linear:independent, whose
    variance is known."""
    agent: tuple[str, ...] = ("pes", "nres")
    """Estimators, each with the task's defaults but for the options below."""
    num_pairs: int | None = None
    """Antithetic pairs; None takes the task's default."""
    num_particles: int | None = None
    """Particles of agents without pairs; None takes the task's default."""
    sigma: float | None = None
    """Standard deviation of the perturbations, of the reference too; None takes the
    task's default."""
    noise_period: int | None = None
    """Steps of a perturbation of gpes; None takes the task's default."""
    horizon: int | None = None
    """Steps of an episode; None takes the problem's."""
    theta: tuple[float, ...] | None = None
    """The fixed parameters; None takes a run's first ones."""
    env_kwargs: str = "{}"
    """Options of the problem, as a JSON object."""
    seed: int = 0
    """Seed of all randomness."""

    def subject(self) -> Subject:
        """The problem at this theta; errors as in `make_subject`."""
        return make_subject(
            self.env, self.theta, self.horizon, self.env_kwargs, self.seed
        )

    def make_estimator(self, name: str, **changes: Any) -> Estimator:
        """An agent with these options, some replaced by `changes`; see `make_agent`."""
        options = {
            "num_pairs": self.num_pairs,
            "num_particles": self.num_particles,
            "sigma": self.sigma,
            "noise_period": self.noise_period,
        }
        return make_agent(self.env, name, **{**options, **changes})


def make_subject(
    env: str,
    theta: tuple[float, ...] | None = None,
    horizon: int | None = None,
    env_kwargs: str = "{}",
    seed: int = 0,
) -> Subject:
    """The named problem, at this theta or at its first one.

    Args:
        env: A name, as for training, or `linear:identical` or `linear:independent`.
        theta: The parameters; None takes those that a run with `seed` begins with.
        horizon: Steps of an episode; None takes the problem's, or, if that has no end,
            those of its evaluations.
        env_kwargs: As for training.
        seed: Of the first theta.

    Raises:
        ValueError: If the problem is unknown or cannot be made so.
    """
    if horizon is not None and horizon < 1:
        raise ValueError(f"horizon={horizon} must be at least 1 step")
    if env.startswith("linear:"):
        problem = _make_linear(env, horizon, env_kwargs)
        config = make_config("unrolled:toy-regression", "pes")
        init, rollout = problem.init_theta, make_evaluation_rollout(config, problem)
    else:
        problem, init, rollout = _make_named(env, horizon, env_kwargs)
    first = init(jax.random.key(seed))
    if theta is not None:
        if len(theta) != first.size:
            raise ValueError(
                f"theta has {len(theta)} numbers, and {env} has {first.size} parameters"
            )
        first = jnp.array(theta, first.dtype)
    return Subject(env, problem, rollout, first)


def _make_linear(env: str, horizon: int | None, env_kwargs: str) -> LinearBlocks:
    regime = env.removeprefix("linear:")
    if regime not in REGIMES:
        raise ValueError(unknown_name("linear problem", regime, list(REGIMES)))
    try:
        options = json.loads(env_kwargs)
        if horizon is not None:
            options["horizon"] = horizon
        return LinearBlocks(**{**options, "regime": regime})
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"env_kwargs={env_kwargs!r} does not fit {env}, whose only options are "
            "size and horizon"
        ) from error


def _make_named(env: str, horizon: int | None, env_kwargs: str) -> tuple[Any, Any, Any]:
    config = make_config(env, "pes", env_kwargs=env_kwargs)
    environment = make_environment(config, env)
    if not isinstance(environment, UnrolledProblem):
        config = replace(config, horizon=horizon)
        policy = make_policy(config, environment)
        return None, policy.init, make_rollout(config, environment, policy)
    if horizon is not None and environment.horizon is not None:
        # The problem's own schedules depend on it.
        environment = make_environment(replace(config, horizon=horizon), env)
    rollout = make_evaluation_rollout(config, environment)
    if horizon is not None:
        rollout = replace(rollout, horizon=horizon)
    return environment, environment.init_theta, rollout


def make_agent(env: str, agent: str, **options: Any) -> Estimator:
    """An agent with the task's default options, or these where they are not None.

    Particles begin their episodes together and wait where one ends early: the sum over
    one episode's unrolls is that of whole episodes.

    Raises:
        ValueError: If the agent is unknown, estimates no gradient, or an option that it
            needs is missing.
    """
    known = [name for name in AGENT_NAMES if name != "random-search"]
    if agent not in known:
        raise ValueError(unknown_name("estimator of gradients", agent, known))
    kind = AGENTS[agent]
    given = {name: value for name, value in options.items() if value is not None}
    settings = {
        **task_defaults(env, agent),
        **given,
        "stagger": False,
        "restart_at_once": False,
    }
    for field in fields(kind):
        if field.default is MISSING and field.name not in settings:
            raise ValueError(f"{agent} on {env} needs --{field.name.replace('_', '-')}")
    names = [field.name for field in fields(kind) if field.name in settings]
    return kind(**{name: settings[name] for name in names})

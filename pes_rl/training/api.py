"""The Python interface to training: `pes_rl.train`."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from pes_rl.agents import AGENTS
from pes_rl.assembly.assemble import assemble
from pes_rl.assembly.assembly import Environments
from pes_rl.assembly.factories import make_environment
from pes_rl.config.checks import check_resumed
from pes_rl.config.defaults import default_agent
from pes_rl.config.train_config import TrainConfig, make_config, make_fitted_config
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.names import PYTHON_PREFIX, unknown_name
from pes_rl.envs.own import adapt, is_own, name_of
from pes_rl.envs.rollout.environment import DeviceEnvironment
from pes_rl.learner.schedules import take_schedules
from pes_rl.run_folder.reader import find_checkpoint, read_config, read_functions
from pes_rl.run_folder.writer import choose_folder, removed_if_empty
from pes_rl.training.callbacks import Callback
from pes_rl.training.result import Result
from pes_rl.training.trainer import Trainer

Maker = Callable[..., gymnasium.Env]


def train(
    env: str | Maker | VectorEnv | DeviceEnvironment | Any | None = None,
    agent: str | None = None,
    *,
    resume: str | Path | None = None,
    eval_env: str | Maker | DeviceEnvironment | Any | None = None,
    logdir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Result:
    """Train a policy, with the defaults of `python -m pes_rl.train`.

    Args:
        env: A name, as for the command; a function or class that makes a Gymnasium
            environment; a `VectorEnv`, of which each simulation is a particle; or an
            object that is an environment written in JAX: an own one (see
            `pes_rl.envs.DeviceEnvironment`) or one of Brax. A resumed run needs it only
            where it was no name.
        agent: The gradient estimator; None takes that of the resumed run, or the
            task's default one (`docs/defaults.md`).
        resume: Folder of a run to resume: from its newest checkpoint (RUN), or from an
            earlier one (RUN/checkpoints/STEPS). Its own settings are the defaults of
            all options. With more `total_timesteps` than it had, it continues; its
            schedules are then those of the longer run (`docs/python_api.md`).
        eval_env: Where policies are evaluated, if not in new environments like `env`:
            a name, a function, or an object written in JAX. A `VectorEnv` that is
            neither a `SyncVectorEnv` nor an `AsyncVectorEnv` cannot be made again, and
            needs it.
        logdir: Folder of the run; None makes one as the command does.
        callbacks: Called after every row of the log and every evaluation; they may
            stop the run, evaluate, or request a checkpoint; see `pes_rl.Callback`.
        options: Any other setting, a field of
            `pes_rl.config.train_config.TrainConfig`; `env_kwargs` may be a dictionary.
            `learning_rate`, `sigma` and `reward_shift` may be functions of the progress
            of the run: 0 at its beginning, 1 when `total_timesteps` are used. JAX
            traces them, so write `jnp.where` in place of `if`. They are the whole
            schedule, in place of `learning_rate_decay`, `final_sigma` and
            `final_reward_shift`. A function is not saved: a resumed run needs it again.

    The option `policy` also takes a network of your own: an instance of a flax (linen
    or nnx) or equinox module, functions (init, apply), or a class or function that
    makes one; see docs/own_network.md.

    Returns:
        The run's folder, its summary, the last policy, ready to act, and its theta. A
        run whose Ray workers were lost again and again ends early, with a warning.

    Raises:
        ValueError: If an option is unknown, or the settings do not fit the environment.

    Example:
        >>> import pes_rl
        >>> result = pes_rl.train(
        ...     "inverted_pendulum",
        ...     logdir="my_run",
        ...     total_timesteps=10_000,
        ...     num_pairs=8,
        ...     final_eval_episodes=16,
        ...     learning_rate=lambda progress: 0.3 * (1 - progress) ** 2,
        ... )
        >>> result.summary["final_return"] > 10
        True
        >>> result.policy([0.0, 0.1, 0.0, 0.0]).shape  # the action
        (1,)
    """
    if isinstance(options.get("env_kwargs"), dict):
        options["env_kwargs"] = json.dumps(options["env_kwargs"])
    for given in (env, eval_env):
        _refuse_environment(given)
    _check_callbacks(callbacks)
    network = None
    if not isinstance(options.get("policy", ""), str):
        network = options["policy"]
        options["policy"] = PYTHON_PREFIX + _qualified_name(network)
    options, schedules = take_schedules(options)
    if resume is None:
        config, at = _new_config(env, agent, logdir, options), None
    else:
        config, at = _resumed_config(env, agent, resume, options, logdir)
    environments = None
    if eval_env is not None or not isinstance(env, str | None):
        given = config.env if env is None else env
        environments = Environments(
            _environment(config, given, config.sample_actions),
            _environment(config, _maker(given) if eval_env is None else eval_env),
        )
        if resume is None:  # Defaults fit the length of its episodes.
            horizon = environments.training.horizon
            config = _new_config(env, agent, logdir, options, horizon)
    assembly = assemble(config, environments, network, schedules)
    try:
        folder = choose_folder(config) if resume is None else find_checkpoint(resume)[0]
        with removed_if_empty(folder):
            trainer = Trainer(config, folder, at, assembly, callbacks)
        result = trainer.run()
    finally:
        assembly.close()
    if trainer.failure is not None:
        warnings.warn(trainer.failure, RuntimeWarning, stacklevel=2)
    return result


def _new_config(
    env: Any,
    agent: str | None,
    logdir: str | Path | None,
    options: dict[str, Any],
    horizon: int | None = None,
) -> TrainConfig:
    """The settings of a new run, in an environment with this time limit if known."""
    if env is None:
        raise ValueError(
            "env is missing; give a name such as 'swimmer' or 'gym:Pendulum-v1', or a "
            "function that makes an environment; or set resume to the folder of a run"
        )
    agent = agent or default_agent(_name(env), options)
    if isinstance(env, VectorEnv):
        options = {**_population(env, agent), **options}
    logdir = None if logdir is None else str(logdir)
    if isinstance(env, str):
        return make_fitted_config(env, agent, logdir=logdir, **options)
    return make_config(_name(env), agent, env_horizon=horizon, logdir=logdir, **options)


def _resumed_config(
    env: Any,
    agent: str | None,
    resume: str | Path,
    options: dict[str, Any],
    logdir: str | Path | None,
) -> tuple[TrainConfig, Literal["newest"] | int]:
    """The settings of a resumed run, and the checkpoint to begin with.

    Raises:
        ValueError: If a setting followed a function, and is not given again; or if it
            cannot be changed.
    """
    run, at = find_checkpoint(resume)
    config = read_config(run)
    for name, text in read_functions(run).items():
        if name not in options:
            raise ValueError(
                f"{name} of {run} follows {text}, which no file holds; give it again, "
                f"as {name}=FUNCTION, or a number in its place"
            )
    known = [field.name for field in fields(TrainConfig)]
    for name in options:
        if name not in known:
            raise ValueError(unknown_name("option", name, known))
    changes = {"agent": agent, "env": env if isinstance(env, str) else None}
    given = {name: value for name, value in changes.items() if value is not None}
    resumed = replace(config, **given, **options)
    check_resumed(run, config, resumed, None if logdir is None else str(logdir))
    return resumed, at


def _check_callbacks(callbacks: Any) -> None:
    """Raise `ValueError` if these are not objects in a list."""
    are_many = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    if not are_many or any(isinstance(each, type) for each in callbacks):
        raise ValueError(
            f"callbacks={callbacks!r} must be a list of objects, such as [MyCallback()]"
        )


def _refuse_environment(env: Any) -> None:
    """Raise `ValueError` if it is one environment, of which no more can be made."""
    if not isinstance(env, gymnasium.Env):
        return
    spec = env.spec
    if spec is None:
        name, made = f"a {type(env.unwrapped).__name__}", type(env.unwrapped).__name__
        raise ValueError(
            f"env is {name} that was made already, and training needs many; give the "
            f"class {made}, or a function that makes one"
        )
    raise ValueError(
        f"env is a {spec.id} that was made already, and training needs many; write "
        f"'gym:{spec.id}', or a function: lambda: gymnasium.make('{spec.id}')"
    )


def _environment(config: TrainConfig, given: Any, sample_actions: bool = False) -> Any:
    if isinstance(given, str):
        return make_environment(config, given, sample_actions)
    if not is_own(given):
        return GymnasiumEnvironment(
            given,
            json.loads(config.env_kwargs),
            config.vectorization,
            config.num_threads,
            sample_actions,
        )
    for name in ("env_kwargs", "backend", "vectorization"):
        value = getattr(config, name)
        if value != TrainConfig.__dataclass_fields__[name].default:
            raise ValueError(
                f"{name}={value!r} has no meaning for an object that is already made; "
                "drop it"
            )
    return adapt(given, type(given).__qualname__)


def _maker(env: Any) -> Any:
    """What makes another environment like `env`; one in JAX is a pure function."""
    if not isinstance(env, VectorEnv):
        return env
    # Wrappers around a VectorEnv would be lost.
    if isinstance(env, SyncVectorEnv | AsyncVectorEnv):
        return env.env_fns[0]
    raise ValueError(
        f"policies need an environment to be evaluated in, and a {type(env).__name__} "
        "does not say how to make one; set eval_env to a name or a constructor"
    )


def _population(env: VectorEnv, agent: str) -> dict[str, int]:
    """The setting that makes each simulation a particle of the agent."""
    if agent in AGENTS and "num_particles" in AGENTS[agent].__dataclass_fields__:
        return {"num_particles": env.num_envs}
    if env.num_envs % 2:
        raise ValueError(
            f"a VectorEnv of {env.num_envs} simulations cannot be cut into pairs; "
            f"make one of {env.num_envs + 1}"
        )
    return {"num_pairs": env.num_envs // 2}


def _name(env: Any) -> str:
    """Name of the environment in the run folder."""
    if isinstance(env, str):
        return env
    if is_own(env):
        return name_of(env)
    return PYTHON_PREFIX + _qualified_name(env)


def _qualified_name(given: Any) -> str:
    return getattr(given, "__qualname__", type(given).__name__)

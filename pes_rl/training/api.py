"""The Python interface to training: `pes_rl.train`."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from pes_rl.agents import AGENTS
from pes_rl.assembly.assemble import Environments, assemble
from pes_rl.assembly.factories import make_environment
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.names import PYTHON_PREFIX
from pes_rl.envs.own import adapt, is_own, name_of
from pes_rl.envs.rollout.environment import DeviceEnvironment
from pes_rl.run_folder.writer import choose_folder, removed_if_empty
from pes_rl.training.callbacks import Callback
from pes_rl.training.recorder import Result
from pes_rl.training.trainer import Trainer

Maker = Callable[..., gymnasium.Env]


def train(
    env: str | Maker | VectorEnv | DeviceEnvironment | Any,
    agent: str = "pes",
    *,
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
            `pes_rl.envs.DeviceEnvironment`) or one of Brax.
        agent: The gradient estimator.
        eval_env: Where policies are evaluated, if not in new environments like `env`:
            a name, a function, or an object written in JAX. A `VectorEnv` that is
            neither a `SyncVectorEnv` nor an `AsyncVectorEnv` cannot be made again, and
            needs it.
        logdir: Folder of the run; None makes one as the command does.
        callbacks: Called after every row of the log and every evaluation; they may
            stop the run, evaluate, or request a checkpoint; see `pes_rl.Callback`.
        options: Any other setting, a field of
            `pes_rl.config.train_config.TrainConfig`; `env_kwargs` may be a dictionary.

    Returns:
        The run's folder, its summary, the last policy, ready to act, and its theta. A
        run whose Ray workers were lost again and again ends early, with a warning.

    Raises:
        ValueError: If an option is unknown, or the settings do not fit the environment.
    """
    if isinstance(options.get("env_kwargs"), dict):
        options["env_kwargs"] = json.dumps(options["env_kwargs"])
    if isinstance(env, VectorEnv):
        options = {**_population(env, agent), **options}
    name = _name(env)
    logdir = None if logdir is None else str(logdir)
    config = make_config(name, agent, logdir=logdir, **options)
    if eval_env is not None or not isinstance(env, str):
        environments = Environments(
            _environment(config, env),
            _environment(config, _maker(env) if eval_env is None else eval_env),
        )
        assembly = assemble(config, environments)
    else:
        assembly = assemble(config)
    try:
        folder = choose_folder(config)
        with removed_if_empty(folder):
            trainer = Trainer(config, folder, assembly=assembly, callbacks=callbacks)
        result = trainer.run()
    finally:
        assembly.close()
    if trainer.failure is not None:
        warnings.warn(trainer.failure, RuntimeWarning, stacklevel=2)
    return result


def _environment(config: TrainConfig, given: Any) -> Any:
    if isinstance(given, str):
        return make_environment(config, given)
    if not is_own(given):
        kwargs, num_threads = json.loads(config.env_kwargs), config.num_threads
        return GymnasiumEnvironment(given, kwargs, config.vectorization, num_threads)
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
    return PYTHON_PREFIX + getattr(env, "__qualname__", type(env).__name__)

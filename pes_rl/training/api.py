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
from pes_rl.run_folder.writer import choose_folder, removed_if_empty
from pes_rl.training.callbacks import Callback
from pes_rl.training.recorder import Result
from pes_rl.training.trainer import Trainer

Maker = Callable[..., gymnasium.Env]


def train(
    env: str | Maker | VectorEnv,
    agent: str = "pes",
    *,
    eval_env: str | Maker | None = None,
    logdir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Result:
    """Train a policy, with the defaults of `python -m pes_rl.train`.

    Args:
        env: A name, as for the command; a function or class that makes a Gymnasium
            environment; or a `VectorEnv`, of which each simulation is a particle.
        agent: The gradient estimator.
        eval_env: Where policies are evaluated, if not in new environments like `env`:
            a name or a function. A `VectorEnv` that is neither a `SyncVectorEnv` nor an
            `AsyncVectorEnv` cannot be made again, and needs it.
        logdir: Folder of the run; None makes one as the command does.
        callbacks: Called after every row of the log and every evaluation; they may
            stop the run, evaluate, or request a checkpoint; see `pes_rl.Callback`.
        options: Any other setting, a field of
            `pes_rl.config.train_config.TrainConfig`; `env_kwargs` may be a dictionary.

    The option `policy` also takes a network of your own: an instance of a flax (linen
    or nnx) or equinox module, functions (init, apply), or a class or function that
    makes one; see docs/own_network.md.

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
    name = env if isinstance(env, str) else PYTHON_PREFIX + _name(env)
    network = None
    if not isinstance(options.get("policy", ""), str):
        network = options["policy"]
        options["policy"] = PYTHON_PREFIX + _name(network)
    logdir = None if logdir is None else str(logdir)
    config = make_config(name, agent, logdir=logdir, **options)
    if eval_env is not None or not isinstance(env, str):
        environments = Environments(
            _environment(config, env, config.sample_actions),
            _environment(config, _maker(env) if eval_env is None else eval_env),
        )
        assembly = assemble(config, environments, network)
    else:
        assembly = assemble(config, network=network)
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


def _environment(
    config: TrainConfig, given: str | Maker | VectorEnv, sample_actions: bool = False
) -> Any:
    if isinstance(given, str):
        return make_environment(config, given, sample_actions)
    return GymnasiumEnvironment(
        given,
        json.loads(config.env_kwargs),
        config.vectorization,
        config.num_threads,
        sample_actions,
    )


def _maker(env: str | Maker | VectorEnv) -> str | Maker:
    """The function that makes another environment like `env`."""
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


def _name(given: Any) -> str:
    return getattr(given, "__qualname__", type(given).__name__)

"""Choice of the vectorisation that steps a Gymnasium environment."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from pes_rl.envs.gymnasium.envpool import EnvPoolThreads, pool_spaces
from pes_rl.envs.gymnasium.making import Maker, maker_name
from pes_rl.envs.gymnasium.simulations import Simulations
from pes_rl.envs.gymnasium.space_data import idle_actions
from pes_rl.envs.gymnasium.vector_env import VectorEnvSimulations
from pes_rl.envs.gymnasium.vectorization import Vectorization
from pes_rl.envs.gymnasium.workers import Workers, check_platform

VectorizationName = Literal["auto", "sync", "async", "envpool"]

WORKERS_PAY_FROM = 2e-4
"""Duration of a simulation's step, in seconds, from which "auto" uses worker processes.

The messages of a step with two workers take 0.4 ms (1st percentile) to 0.7 ms (median),
measured on two busy cores with steps that take no time. The workers halve the time of
the N steps themselves: at N = 16 and this duration, that saves 1.6 ms.
"""


@dataclass(frozen=True)
class Choice:
    """The properties of an environment, and how its simulations are stepped.

    Attributes:
        environment: Name of the environment in error messages.
        actions: Action space of one simulation.
        observations: Its observation space.
        horizon: The environment's own time limit, in steps; None without one.
        name: Description of the vectorisation.
        vectorize: Makes the given number of simulations.
    """

    environment: str
    actions: gymnasium.Space
    observations: gymnasium.Space
    horizon: int | None
    name: str
    vectorize: Callable[[int], Vectorization]


def choose(
    maker: Maker | VectorEnv,
    env_kwargs: dict[str, Any],
    vectorization: VectorizationName,
    num_threads: int,
) -> Choice:
    """Choose a vectorisation; same arguments and errors as `GymnasiumEnvironment`."""
    if num_threads < 0:
        raise ValueError(
            f"num_threads={num_threads} must be 0 (every CPU) or more; use 0"
        )
    num_threads = num_threads or count_cpus()
    if isinstance(maker, VectorEnv):
        return _choose_vector_env(maker, env_kwargs, vectorization)
    if vectorization == "envpool":
        actions, observations, limit = pool_spaces(maker, env_kwargs)
        return Choice(
            maker_name(maker),
            actions,
            observations,
            limit,
            f"envpool, {num_threads} threads",
            partial(EnvPoolThreads, maker, env_kwargs, num_threads),
        )
    environment = maker_name(maker)
    one = Simulations(maker, env_kwargs, 1, environment)
    if vectorization == "auto":
        able = num_threads > 1 and sys.platform != "win32"
        slow = able and step_seconds(one) > WORKERS_PAY_FROM
        vectorization = "async" if slow else "sync"
    one.close()
    size = one.observation_size
    vectorize: Callable[[int], Vectorization]
    if vectorization == "async":
        check_platform()
        name = f"async, {num_threads} processes"
        vectorize = partial(Workers, maker, env_kwargs, size, num_threads, environment)
    else:
        name = "sync"
        vectorize = partial(Simulations, maker, env_kwargs, name=environment)
    return Choice(
        environment, one.actions, one.observations, one.time_limit, name, vectorize
    )


def _choose_vector_env(
    envs: VectorEnv, env_kwargs: dict[str, Any], vectorization: VectorizationName
) -> Choice:
    if vectorization != "auto" or env_kwargs:
        raise ValueError(
            f"vectorization={vectorization!r} and env_kwargs={env_kwargs} have no "
            "meaning for a VectorEnv, which already exists and steps itself; drop "
            "them, or pass the constructor of one environment"
        )
    simulations = VectorEnvSimulations(envs)

    def vectorize(count: int) -> Vectorization:
        if count != envs.num_envs:
            raise ValueError(
                f"{count} simulations are needed and the VectorEnv has "
                f"{envs.num_envs}; use num_pairs={envs.num_envs // 2}"
            )
        return simulations

    return Choice(
        simulations.name,
        envs.single_action_space,
        envs.single_observation_space,
        _time_limit(envs),
        f"the given {type(envs).__name__}",
        vectorize,
    )


def _time_limit(envs: VectorEnv) -> int | None:
    spec = envs.spec
    if spec is None and hasattr(envs, "get_attr"):  # Sync- and AsyncVectorEnv
        spec = envs.get_attr("spec")[0]  # type: ignore[attr-defined]
    return spec.max_episode_steps if spec is not None else None


def step_seconds(simulations: Simulations) -> float:
    """Median duration of a step of the first one, with one and the same action.

    Raises:
        BrokenEnvironment: As by `Simulations.step`.
    """
    actions = idle_actions(simulations.actions, 1)
    seeds, ids = np.zeros(1, np.int64), np.arange(1)
    simulations.reset(seeds, ids)
    taken: list[float] = []
    while len(taken) < 100 and sum(taken) < 0.2:
        start = time.perf_counter()
        _, _, ended = simulations.step(actions, ids)
        taken.append(time.perf_counter() - start)
        if ended[0]:
            simulations.reset(seeds, ids)
    return float(np.median(taken))


def count_cpus() -> int:
    """CPUs that this process may use; where the system does not say, all CPUs."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

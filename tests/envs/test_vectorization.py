"""However a Gymnasium environment's simulations are stepped, the segments are the same.

The counting environment shows an error of one step anywhere: its observation is the
step number, its rewards depend on the step and on all actions of the episode, and an
episode that an autoreset begins has another tide than any of ours.
"""

import os
import signal
from functools import cache, partial
from typing import Any

import counting
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium_counting import GymnasiumCounting

from pes_rl.agents import PES
from pes_rl.envs import HostRollout
from pes_rl.envs.gymnasium_family import GymnasiumEnvironment
from pes_rl.envs.vectorization import choice
from pes_rl.envs.vectorization.workers import Workers

NUM_PAIRS = 4
N = 2 * NUM_PAIRS
TIME_LIMIT = 7
LONG = 20


def vector(cls: Any, mode: AutoresetMode, count: int = N, **options: Any) -> VectorEnv:
    if cls is AsyncVectorEnv:
        options = {"context": "spawn", **options}  # JAX's threads bear no fork
    return cls([GymnasiumCounting] * count, autoreset_mode=mode, **options)


VECTORIZATIONS: dict[str, Any] = {
    "sync": lambda: GymnasiumEnvironment(GymnasiumCounting, vectorization="sync"),
    "async": lambda: GymnasiumEnvironment(
        GymnasiumCounting, vectorization="async", num_threads=3
    ),
    **{
        f"{cls.__name__} {mode.name}": partial(
            lambda cls, mode: GymnasiumEnvironment(vector(cls, mode)), cls, mode
        )
        for cls in (SyncVectorEnv, AsyncVectorEnv)
        for mode in AutoresetMode
    },
}


@cache
def environment(name: str) -> GymnasiumEnvironment:
    return VECTORIZATIONS[name]()


def history(rollout: Any, horizon: int, length: int, **options: Any) -> list[Any]:
    """Segments, clocks and observations of several unrolls."""
    thetas = jax.random.normal(jax.random.key(5), (4, N, counting.NUM_PARAMETERS))
    particles = rollout.reset(
        jax.random.key(3), NUM_PAIRS, stagger=horizon < LONG
    )
    rows = []
    for theta in 2 * thetas:
        particles, segment = rollout.unroll(particles, theta, length, **options)
        rows.append((segment, particles.clock, counting.observation_of(particles)))
    return jax.tree.map(np.asarray, rows)


@pytest.mark.parametrize(
    ("horizon", "length"), [(LONG, 5), (5, 4), (LONG, 25)],
    ids=["early ends", "time limits", "several ends"],
)
@pytest.mark.parametrize("single_episode", [False, True])
@pytest.mark.parametrize("name", VECTORIZATIONS)
def test_segments_are_those_of_the_device_driver(name, single_episode, horizon, length):
    """Early ends, our own time limits, staggered starts and particles that wait."""
    ours, device = (
        history(rollout, horizon, length, single_episode=single_episode)
        for rollout in (
            HostRollout(environment(name), counting.act, horizon),
            counting.device_rollout(horizon),
        )
    )
    jax.tree.map(np.testing.assert_array_equal, ours, device)
    assert sum(segment.ended.sum() for segment, _, _ in ours) >= N
    simulated = sum(segment.simulated.sum() for segment, _, _ in ours)
    assert (simulated < 4 * length * N) == single_episode


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
def test_what_diverges_with_the_last_step_is_seen(mode):
    """In SAME_STEP the observation that diverged comes as `final_obs` alone."""
    make = partial(GymnasiumCounting, time_limit=3, diverges_at=3)
    batch = GymnasiumEnvironment(SyncVectorEnv([make] * N, autoreset_mode=mode))
    host = HostRollout(batch, counting.act, LONG, diverged_loss=2.5)
    one_by_one = GymnasiumEnvironment(make, vectorization="sync")
    reference = HostRollout(one_by_one, counting.act, LONG, diverged_loss=2.5)
    ours, expected = history(host, LONG, 8), history(reference, LONG, 8)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)
    assert sum(segment.diverged.sum() for segment, _, _ in ours) > 4

"""However a Gymnasium environment's simulations are stepped, the segments are the same.

The counting environment shows an error of one step anywhere: its observation is the
step number, its rewards depend on the step and on all actions of the episode, and an
episode that an autoreset begins has another tide than any of ours.
"""

import os
import sys
from functools import cache, partial
from typing import Any

import counting
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium_counting import GymnasiumCounting
from seeded_counting import SeededDeviceCounting

from pes_rl.agents import PES
from pes_rl.envs import HostRollout, PolicyProblem
from pes_rl.envs.gymnasium import choice
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.gymnasium.simulations import Simulations

pytestmark = pytest.mark.user_compilation

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
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS, stagger=horizon < LONG)
    rows = []
    for theta in 2 * thetas:
        particles, segment = rollout.unroll(particles, theta, length, **options)
        rows.append((segment, particles.clock, counting.observation_of(particles)))
    return jax.tree.map(np.asarray, rows)


@pytest.mark.parametrize(
    ("horizon", "length", "single_episode"),
    [(LONG, 5, False), (LONG, 25, False), (LONG, 5, True), (5, 4, True)],
    ids=["early ends", "several ends", "waiting", "time limits, waiting"],
)
@pytest.mark.parametrize("name", VECTORIZATIONS)
def test_segments_are_those_of_the_device_driver(name, single_episode, horizon, length):
    """Early ends, our own time limits, staggered starts and particles that wait."""
    ours, device = (
        history(rollout, horizon, length, single_episode=single_episode)
        for rollout in (
            HostRollout(environment(name), counting.act, horizon),
            counting.CompiledRollout(
                PolicyProblem(SeededDeviceCounting(horizon), counting.act), horizon
            ),
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


def test_idle_steps_of_a_vector_env_are_counted():
    """Each of its steps is a step of all; those that a segment has not are counted."""
    batch = environment("SyncVectorEnv NEXT_STEP")
    rollout = HostRollout(batch, counting.act, LONG)
    before = batch.idle_steps
    rows = history(rollout, LONG, 25, single_episode=True)
    simulated = [segment.simulated for segment, _, _ in rows]
    steps = sum(int(row.any(1).sum()) for row in simulated)
    waited = N * steps - sum(int(row.sum()) for row in simulated)
    assert batch.idle_steps - before == waited > 0
    assert environment("sync").idle_steps == 0


def test_pes_is_the_same_on_all_of_them():
    gradients = []
    for name in ("sync", "async", "SyncVectorEnv SAME_STEP"):
        rollout = HostRollout(environment(name), counting.act, 5)
        estimator, theta = PES(NUM_PAIRS, 3, 0.7), jnp.array([0.25, -0.5])
        state = estimator.init(rollout, theta, jax.random.key(1))
        for key in jax.random.split(jax.random.key(2), 3):
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
        gradients.append(gradient)
    np.testing.assert_array_equal(gradients[0], gradients[1])
    np.testing.assert_array_equal(gradients[0], gradients[2])


class Whole(gymnasium.vector.VectorEnv):
    """Resets everybody, whatever it is asked."""

    def __init__(self, count: int = 2) -> None:
        self.num_envs = count
        self.single_observation_space = GymnasiumCounting.observation_space
        self.single_action_space = GymnasiumCounting.action_space
        self.steps = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros((self.num_envs, 2)), {}

    def step(self, actions: Any) -> Any:
        self.steps += 1
        no = np.zeros(self.num_envs, bool)
        return np.full((self.num_envs, 2), self.steps), 0.0 * no, no, no, {}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Whole(), {}, "this Whole does not reset chosen simulations with chosen seeds"),
        (Whole(), {"vectorization": "sync"}, "no meaning for a VectorEnv"),
        (GymnasiumCounting, {"vectorization": "envpool"}, "EnvPool has no <class"),
        ("Nothing-v3", {"vectorization": "envpool"}, "EnvPool has no 'Nothing-v3'"),
        ("Pendulum-v1", {"num_threads": -1}, "num_threads=-1 must be 0"),
        (dict, {}, "must make one gymnasium.Env"),
    ],
)
def test_what_cannot_be_stepped_is_refused_with_what_to_do(make, options, message):
    if options.get("vectorization") == "envpool":
        pytest.importorskip("envpool")
    with pytest.raises(ValueError, match=message):
        GymnasiumEnvironment(make, **options)


def test_a_vector_env_has_the_simulations_that_it_has():
    batch = environment("SyncVectorEnv DISABLED")
    with pytest.raises(ValueError, match="use num_pairs=4"):
        HostRollout(batch, counting.act, LONG).reset(jax.random.key(0), 5)


def test_gymnasium_s_reset_without_shared_memory_is_known_to_be_faulty():
    envs: Any = vector(AsyncVectorEnv, AutoresetMode.NEXT_STEP, 1, shared_memory=False)
    with pytest.raises(ValueError, match="use shared_memory=True"):
        GymnasiumEnvironment(envs)
    action = np.full((1, 1), 4, np.float32)
    envs.reset(seed=[3])
    while not envs.step(action)[2][0]:
        pass
    envs.reset(seed=[3], options={"reset_mask": np.ones(1, bool)})
    observation, *_ = envs.step(action)
    envs.close()
    assert observation[0, 0] == 0, "repaired upstream: drop the check in vector_env.py"


def test_slow_steps_go_to_worker_processes(monkeypatch):
    names = []
    for seconds in (0.5, 2.0):
        monkeypatch.setattr(
            choice, "step_seconds", lambda _, s=seconds: s * choice.WORKERS_PAY_FROM
        )
        made = GymnasiumEnvironment("Pendulum-v1", num_threads=2)
        names.append(made.vectorization)
    assert names == ["sync", "async, 2 processes"]
    pendulum = Simulations("Pendulum-v1", {}, 1, "Pendulum-v1")
    assert choice.step_seconds(pendulum) > 0


def test_windows_has_no_workers_here(monkeypatch):
    """There `subprocess` knows no `pass_fds`."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match="does not work on Windows; use 'sync'"):
        GymnasiumEnvironment(GymnasiumCounting, vectorization="async")
    # As where steps are slow.
    monkeypatch.setattr(choice, "WORKERS_PAY_FROM", 0.0)
    assert (
        GymnasiumEnvironment(GymnasiumCounting, num_threads=2).vectorization == "sync"
    )


def test_cpus_are_counted_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert choice.count_cpus() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert choice.count_cpus() == 1

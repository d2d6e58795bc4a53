"""Worker processes of Gymnasium environments: deaths, errors, what they import."""

import os
import signal
import sys
import threading
from functools import cache, partial
from typing import Any

import counting
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium_counting import GymnasiumCounting

from pes_rl.envs import EngineLost, HostRollout
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.gymnasium.workers import Workers

NUM_PAIRS = 4
N = 2 * NUM_PAIRS
LONG = 20


@cache
def environment() -> GymnasiumEnvironment:
    return GymnasiumEnvironment(GymnasiumCounting, vectorization="async", num_threads=3)


def kill_a_worker(batch: GymnasiumEnvironment) -> None:
    """Kill the first of three; it has simulations 0 to 2."""
    workers = batch._simulations
    assert isinstance(workers, Workers)
    os.kill(workers.pids[0], signal.SIGKILL)


def test_a_killed_worker_costs_its_own_episodes_and_no_others(caplog):
    def unrolls(kill: bool) -> tuple[Any, Any]:
        batch = environment()
        rollout = HostRollout(batch, counting.act, LONG, diverged_loss=2.5)
        thetas = -jnp.ones((N, counting.NUM_PARAMETERS))
        particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
        particles, _ = rollout.unroll(particles, thetas, 3)
        if kill:
            kill_a_worker(batch)
        return rollout.unroll(particles, thetas, 2)

    particles, segment = unrolls(kill=True)
    expected_particles, expected = unrolls(kill=False)
    assert np.asarray(segment.diverged).tolist() == [
        [True] * 3 + [False] * 5,
        [False] * 8,
    ]
    np.testing.assert_array_equal(segment.loss[0, :3], 2.5)
    assert particles.clock.episode.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert particles.clock.elapsed.tolist() == [1, 1, 1, 5, 5, 5, 5, 5]
    np.testing.assert_array_equal(segment.loss[:, 3:], expected.loss[:, 3:])
    np.testing.assert_array_equal(
        particles.state.observation[3:], expected_particles.state.observation[3:]
    )
    # Both members of pair 0 have lost an episode; the next is the same for both.
    assert segment.loss[1, 0] == segment.loss[1, 1]
    assert "is replaced; 3 of its 3 simulations" in caplog.text


def test_workers_that_die_one_after_another_are_a_lost_engine():
    batch = environment()
    rollout = HostRollout(batch, counting.act, LONG)
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
    workers: Any = batch._simulations
    dies = partial(os._exit, 3)
    workers._make_arguments = [
        (dies, *others) for _, *others in workers._make_arguments
    ]
    kill_a_worker(batch)
    with pytest.raises(EngineLost, match="so did its replacement before it had made"):
        rollout.unroll(particles, jnp.ones((N, counting.NUM_PARAMETERS)), 2)
    with pytest.raises(ValueError, match="the process died"):
        Workers(dies, {}, 2, 1, "dies", 2)


def test_simulations_that_wait_survive_the_death_of_their_worker():
    """Simulation 0 waits when its worker dies: its next episode is what it would be."""
    thetas = -jnp.ones((N, counting.NUM_PARAMETERS)).at[0].multiply(-1)
    segments = []
    for kill in (False, True):
        batch = environment()
        calls = iter(range(100))

        def act(thetas: Any, observation: Any, kill=kill, batch=batch, calls=calls):
            if next(calls) == 5 and kill:
                kill_a_worker(batch)
            return counting.act(thetas, observation)

        rollout = HostRollout(batch, act, LONG)
        particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
        particles, segment = rollout.unroll(particles, thetas, 10, single_episode=True)
        assert segment.ended[:5, 0].any()
        assert segment.diverged[5].tolist() == [False, kill, kill, *[False] * 5]
        segments.append(rollout.unroll(particles, thetas, 4)[1])
    np.testing.assert_array_equal(segments[0].loss[:, 0], segments[1].loss[:, 0])
    np.testing.assert_array_equal(segments[0].ended[:, 0], segments[1].ended[:, 0])


def test_what_an_environment_raises_in_a_worker_is_shown():
    batch = GymnasiumEnvironment(
        GymnasiumCounting, {"fails": True}, vectorization="async", num_threads=1
    )
    batch.allocate(2)
    batch.reset(np.arange(2), np.zeros((2, 2), np.uint32))
    with pytest.raises(ValueError, match="step 1 raised OSError: the robot is on fire"):
        batch.step(np.zeros((2, 1)), None)


def test_a_constructor_that_cannot_be_sent_to_a_worker_is_refused():
    lock = threading.Lock()

    def make() -> gymnasium.Env:
        assert not lock.locked()
        return GymnasiumCounting()

    environment = GymnasiumEnvironment(make, vectorization="async", num_threads=1)
    with pytest.raises(ValueError, match=r"make cannot be sent to worker .* \(cannot"):
        environment.allocate(1)


def test_a_worker_imports_neither_jax_nor_this_package():
    here = os.getpid()

    def make() -> gymnasium.Env:
        import os

        if os.getpid() != here:
            assert not {"jax", "pes_rl"} & set(sys.modules)
            assert "results" not in sys.modules  # no name that a user's module may have
        return GymnasiumCounting()

    environment = GymnasiumEnvironment(make, vectorization="async", num_threads=1)
    environment.allocate(2)
    environment.close()

"""Recurrent policies on both drivers, beside loops over one particle at a time."""

from dataclasses import replace
from functools import partial

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import remembering
from worker_pools import LocalWorkerPool

from pes_rl.envs import HostRollout, ObservationMoments
from pes_rl.envs.ray.rollout import RayRollout
from pes_rl.envs.ray.worker_rollout import WorkerRollout
from pes_rl.envs.rollout.host import HostState

pytestmark = pytest.mark.user_compilation

NUM_PAIRS, HORIZON, LENGTH, UNROLLS = 4, 6, 5, 4
KEY = jax.random.key(3)

every_driver = pytest.mark.parametrize("driver", remembering.ROLLOUTS)


def all_thetas():
    """Antithetic parameters of all particles, for each unroll."""
    half = 2 * np.random.default_rng(0).normal(size=(UNROLLS, NUM_PAIRS, 1, 2))
    thetas = np.concatenate([half, -half], axis=2).reshape(UNROLLS, 2 * NUM_PAIRS, 2)
    return thetas.astype(np.float32)


def loops(diverges_at, single_episode):
    """Losses [K, N] and the carries of all particles after each unroll."""
    environment = counting.HostCounting(HORIZON, diverges_at=diverges_at)
    keys = jax.random.split(KEY, NUM_PAIRS)
    system = remembering.RememberingSystem(environment, keys)
    particles = [
        reference.Particle(system, i // 2, HORIZON, HORIZON, 2.5)
        for i in range(2 * NUM_PAIRS)
    ]
    results = []
    for thetas in all_thetas():
        losses = np.zeros((LENGTH, 2 * NUM_PAIRS))
        for i, particle in enumerate(particles):
            for k in range(LENGTH):
                losses[k, i], ended = particle.step(thetas[i])
                if ended and single_episode:
                    break
        carries = [particle.state[1] for particle in particles]
        results.append((losses, jax.tree.map(lambda *c: np.stack(c), *carries)))
    return results, particles


@every_driver
@pytest.mark.parametrize("diverges_at", [None, 3])
@pytest.mark.parametrize("single_episode", [False, True])
def test_losses_and_carries_are_those_of_loops(driver, diverges_at, single_episode):
    rollout = remembering.ROLLOUTS[driver](HORIZON, 2.5, diverges_at=diverges_at)
    particles = rollout.reset(KEY, NUM_PAIRS)
    expected, by_loops = loops(diverges_at, single_episode)
    for thetas, (losses, carries) in zip(all_thetas(), expected, strict=True):
        particles, segment = rollout.unroll(
            particles, jnp.asarray(thetas), LENGTH, single_episode=single_episode
        )
        np.testing.assert_array_equal(segment.loss, losses)
        own = remembering.carry_of(particles)
        jax.tree.map(np.testing.assert_array_equal, own, carries)
        np.testing.assert_array_equal(own["calls"], particles.clock.elapsed)
    lengths = {tuple(steps for _, steps in p.finished) for p in by_loops}
    assert min(map(len, lengths)) >= 2, "every particle has begun anew"
    assert len(lengths) > 1, "and not all at the same steps"
    assert own["calls"].dtype == np.int32
    assert own["memory"].dtype == np.float32


@every_driver
def test_an_unroll_leaves_the_particles_before_it_as_they_were(driver):
    rollout = remembering.ROLLOUTS[driver](HORIZON)
    start = rollout.reset(KEY, NUM_PAIRS)
    middle, _ = rollout.unroll(start, jnp.asarray(all_thetas()[0]), 2)
    before = jax.tree.map(np.copy, remembering.carry_of(middle))
    after, segment = rollout.unroll(middle, jnp.asarray(all_thetas()[1]), LENGTH)
    jax.tree.map(np.testing.assert_array_equal, remembering.carry_of(middle), before)
    again, other = rollout.unroll(middle, jnp.asarray(all_thetas()[1]), LENGTH)
    jax.tree.map(np.testing.assert_array_equal, segment, other)
    jax.tree.map(np.testing.assert_array_equal, after, again)


@every_driver
def test_copies_of_particles_have_copies_of_their_carries(driver):
    rollout = remembering.ROLLOUTS[driver](HORIZON)
    particles = rollout.reset(KEY, NUM_PAIRS)
    particles, _ = rollout.unroll(particles, jnp.asarray(all_thetas()[0]), 2)
    copies = rollout.take(particles, [3, 3, 0])
    own, copied = (remembering.carry_of(p) for p in (particles, copies))
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[[3, 3, 0]], b), own, copied
    )
    assert (own["memory"][3] != own["memory"][0]).any()


@every_driver
def test_the_policy_gets_normalised_observations(driver):
    """Steps moved by one exchange even and odd ones, and with them the thetas."""
    moments = ObservationMoments(jnp.ones(()), jnp.array([1.0, 0.0]), jnp.ones(2))
    plain = remembering.ROLLOUTS[driver](HORIZON)
    thetas = jnp.asarray(all_thetas()[0])
    segments = []
    for rollout, rows in [
        (plain.normalized(moments), thetas),
        (plain, thetas[:, ::-1]),
    ]:
        particles = rollout.reset(KEY, NUM_PAIRS)
        segments.append(rollout.unroll(particles, rows, LENGTH)[1])
    np.testing.assert_array_equal(segments[0].loss, segments[1].loss)
    assert segments[0].observations is not None


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_what_one_process_does(workers):
    """Particles travel with their carries; nothing here is started by Ray."""
    build = partial(_worker, HORIZON)
    rollout = RayRollout(LocalWorkerPool(build, workers), HORIZON, can_copy=True)
    alone = remembering.host_rollout(HORIZON)
    particles, expected = rollout.reset(KEY, NUM_PAIRS), alone.reset(KEY, NUM_PAIRS)
    for thetas in map(jnp.asarray, all_thetas()):
        particles, segment = rollout.unroll(particles, thetas, LENGTH)
        expected, same = alone.unroll(expected, thetas, LENGTH)
        jax.tree.map(np.testing.assert_array_equal, segment, same)
        jax.tree.map(np.testing.assert_array_equal, particles, expected)


def _worker(horizon):
    return WorkerRollout(remembering.host_rollout(horizon))


def test_a_rollout_without_a_carry_has_the_state_it_always_had():
    """So that checkpoints of before can be read."""
    device = counting.device_rollout().reset(KEY, 2).state
    assert isinstance(device, tuple)
    assert set(device[0]) == {"step", "tide", "fuel", "drift"}
    rollout = counting.host_rollout()
    assert type(rollout) is HostRollout
    state = rollout.reset(KEY, 2).state
    assert isinstance(state, HostState)
    assert set(state.simulation) == {"step", "tide", "fuel", "drift"}


def test_a_carry_of_numbers_keeps_the_types_it_began_with():
    rollout = remembering.host_rollout(HORIZON)
    wide = replace(rollout, act=_in_float64)
    particles, _ = wide.unroll(
        wide.reset(KEY, NUM_PAIRS), jnp.asarray(all_thetas()[0]), 2
    )
    assert remembering.carry_of(particles)["memory"].dtype == np.float32


def _in_float64(theta, carry, observation):
    carry, action = remembering.act(theta, carry, observation)
    return {**carry, "memory": carry["memory"].astype(np.float64)}, action

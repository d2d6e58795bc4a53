"""Moments of observations, against NumPy's and against a replay step by step."""

from functools import cache

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.envs import DeviceRollout, ObservationMoments, Segment
from pes_rl.envs.rollout.observations import (
    add_observations,
    compute_moments,
    empty_sums,
)

NUM_PAIRS, LENGTH = 4, 12
# Powers of two, so that normalisation is exact too. Policies see each step's number
# less one: what they do on even steps they now do on odd ones.
MOMENTS = ObservationMoments(
    jnp.float32(7), jnp.array([1.0, 512.0]), jnp.array([1.0, 2.0**16])
)
every_driver = pytest.mark.parametrize("driver", counting.ROLLOUTS)
every_way = pytest.mark.parametrize("single_episode", [True, False])


def thetas():
    half = 2 * jax.random.normal(jax.random.key(5), (NUM_PAIRS, 1, 2))
    return jnp.concatenate([half, -half], axis=1).reshape(2 * NUM_PAIRS, 2)


@cache
def unroll(driver: str, single_episode: bool) -> tuple[Segment, list[np.ndarray]]:
    """Normalised segment, and every observation that each particle acted on in it."""
    rollout = counting.ROLLOUTS[driver](20, 2.5, diverges_at=3)

    def normalized(particles, moments):
        return rollout.normalized(moments).unroll(
            particles, thetas(), LENGTH, single_episode=single_episode
        )

    start = rollout.reset(jax.random.key(3), NUM_PAIRS)
    play = jax.jit(normalized) if rollout.on_device else normalized
    _, segment = play(start, MOMENTS)
    acted_on = [[] for _ in range(2 * NUM_PAIRS)]
    plain = counting.host_rollout(20, 2.5, diverges_at=3)
    particles = plain.reset(jax.random.key(3), NUM_PAIRS)
    for k in range(LENGTH):
        for i in np.flatnonzero(segment.simulated[k]):
            acted_on[i].append(counting.observation_of(particles)[i])
        particles, row = plain.unroll(particles, thetas()[:, ::-1], 1)
        simulated = np.asarray(segment.simulated[k])
        np.testing.assert_array_equal(
            segment.loss[k], np.asarray(row.loss[0]) * simulated
        )
        np.testing.assert_array_equal(
            segment.ended[k], np.asarray(row.ended[0]) & simulated
        )
    return segment, [np.array(rows, np.float64) for rows in acted_on]


@every_way
@every_driver
def test_moments_are_those_of_every_observation_acted_on(driver, single_episode):
    """Those of waiting particles and of simulations that diverged left out."""
    segment, acted_on = unroll(driver, single_episode)
    assert segment.ended.any()
    assert single_episode == (not segment.simulated.all())
    diverged = np.asarray(segment.diverged.any(0))
    assert diverged.any()
    every = np.concatenate([acted_on[i] for i in np.flatnonzero(~diverged)])
    assert segment.observations is not None
    moments = compute_moments(segment.observations, segment.simulated, segment.diverged)
    assert moments.count == len(every)
    np.testing.assert_allclose(moments.mean, every.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, every.var(0), rtol=1e-5)


@every_way
def test_both_drivers_collect_identical_sums(single_episode):
    on_device, on_host = (
        unroll(driver, single_episode)[0] for driver in counting.ROLLOUTS
    )
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)
    assert on_host.observations is not None
    assert on_host.observations.total.any()


def moments_of(rows: np.ndarray, num_particles: int = 5) -> ObservationMoments:
    """Of observations [M, O], a few particles at a time."""
    steps = rows.reshape(-1, num_particles, rows.shape[1])
    running = np.ones(num_particles, bool)
    sums = empty_sums(steps[0])
    for observation in steps:
        sums = add_observations(sums, observation, running)
    simulated = np.ones(steps.shape[:2], bool)
    return compute_moments(jax.tree.map(jnp.asarray, sums), simulated, ~simulated)


def test_merged_moments_are_those_of_all_together_whatever_their_mean_and_scale():
    generator = np.random.default_rng(0)
    scale, mean = [1e-3, 1.0, 1e4], [1.0, -2000.0, 1e3]
    rows = generator.normal(mean, scale, (1000, 3)).astype(np.float32)
    moments = ObservationMoments.empty(3)
    for part in np.split(rows, [5, 100, 400]):
        moments = moments.merge(moments_of(part))
    exact = rows.astype(np.float64)
    assert moments.count == 1000
    # A mean is good to float32's precision of the observations themselves.
    error = np.abs(np.asarray(moments.mean) - exact.mean(0))
    assert (error <= 3e-7 * np.abs(mean) + 1e-6 * np.array(scale)).all()
    np.testing.assert_allclose(moments.variance, exact.var(0), rtol=1e-3)


def test_a_dimension_that_never_varies_is_left_unscaled():
    """Exactly, for a number that float32 cannot sum exactly; and it is centred."""
    rows = np.full((600, 2), 0.1, np.float32)
    rows[:, 1] = np.arange(600)
    moments = ObservationMoments.empty(2)
    for part in np.split(rows, 3):
        moments = moments.merge(moments_of(part))
    assert moments.mean[0] == np.float32(0.1)
    assert moments.variance[0] == 0
    assert moments.std[0] == 1
    assert moments.std[1] == pytest.approx(rows[:, 1].std())
    np.testing.assert_allclose(
        moments.normalize(np.array([1.1, 299.5], np.float32)), [1.0, 0.0], atol=1e-5
    )


def test_no_observations_normalise_to_themselves():
    nothing, observation = (
        ObservationMoments.empty(2),
        np.array([3.0, -1e5], np.float32),
    )
    np.testing.assert_array_equal(nothing.normalize(observation), observation)
    np.testing.assert_array_equal(
        nothing.merge(nothing).normalize(observation), observation
    )


def test_a_particle_beyond_float32_leaves_the_others_alone():
    """Its squares overflow, though nothing says yet that its simulation diverged."""
    steps = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    steps[:, 1] = 1e30
    sums = empty_sums(jnp.asarray(steps[0]))
    for observation in jnp.asarray(steps):
        sums = add_observations(sums, observation, jnp.ones(3, bool))
    simulated = jnp.ones((4, 3), bool)
    moments = compute_moments(sums, simulated, ~simulated)
    others = steps[:, [0, 2]].reshape(8, 2)
    assert moments.count == 8
    np.testing.assert_allclose(moments.mean, others.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, others.var(0), rtol=1e-5)


def test_what_has_no_observations_cannot_be_normalised():
    class Still:
        def init(self, key):
            return key

        def step(self, theta, state):
            return state, theta.sum(), jnp.array(False)

    with pytest.raises(ValueError, match="has no observations; use"):
        DeviceRollout(Still(), horizon=5).normalized(MOMENTS)

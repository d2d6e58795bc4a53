"""Time limits that vary: their distribution, pairs, both drivers, unbiasedness."""

from dataclasses import replace

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents.pes import PES
from pes_rl.envs import DeviceRollout
from pes_rl.envs.rollout.episodes import next_limits, start_clock
from pes_rl.envs.rollout.horizons import VaryingHorizon

pytestmark = pytest.mark.user_compilation

SHORTEST, LONGEST = 2, 12


def seeds(count: int) -> jax.Array:
    return jax.random.key_data(jax.random.split(jax.random.key(4), count))


def test_log_uniform_limits_have_the_probabilities_of_their_formula():
    """P(T = t) = log((t + 1) / t) / log((b + 1) / a)."""
    count = 40_000
    limits = np.asarray(
        VaryingHorizon(SHORTEST, LONGEST)(seeds(count), jnp.zeros(count, jnp.int32))
    )
    times = np.arange(SHORTEST, LONGEST + 1)
    expected = np.log((times + 1) / times) / np.log((LONGEST + 1) / SHORTEST)
    found = np.array([(limits == t).mean() for t in times])
    assert limits.min() >= SHORTEST and limits.max() <= LONGEST
    error = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(found - expected) < 4 * error).all()


def test_growing_limits_reach_the_horizon_and_stay():
    growing = VaryingHorizon(10, 1000, "growing", growth_episodes=4)
    limits = growing(seeds(6), jnp.arange(6))
    np.testing.assert_array_equal(limits, [10, 31, 100, 316, 1000, 1000])


def test_equal_bounds_give_one_limit():
    limits = VaryingHorizon(7, 7)(seeds(500), jnp.zeros(500, jnp.int32))
    np.testing.assert_array_equal(limits, 7)


@pytest.mark.parametrize("bounds", [(0, 5), (6, 5)])
def test_bounds_in_the_wrong_order_are_refused(bounds):
    with pytest.raises(ValueError, match=r"must be from 1 to the horizon 5"):
        VaryingHorizon(*bounds)


def test_pairs_share_limits_and_episodes_and_pairs_differ():
    longest = 1_000_000
    varying = VaryingHorizon(1000, longest)
    clock = start_clock(jax.random.key(0), 8, longest, varying=varying)
    first = np.asarray(clock.limit)
    second = np.asarray(next_limits(clock, longest, varying))
    np.testing.assert_array_equal(first[::2], first[1::2])
    np.testing.assert_array_equal(second[::2], second[1::2])
    assert len({*first.tolist(), *second.tolist()}) == 16


def test_staggering_scales_each_first_limit():
    varying = VaryingHorizon(100, 1000)
    plain, staggered = (
        start_clock(jax.random.key(0), 4, 1000, varying=varying, stagger=stagger).limit
        for stagger in (False, True)
    )
    shares = np.repeat([1, 2, 3, 4], 2)
    np.testing.assert_array_equal(staggered, shares * np.asarray(plain) // 4)


def test_drivers_end_the_same_episodes_at_their_limits():
    """No fuel runs out within five steps, so every end is a limit of that episode."""
    varying = VaryingHorizon(1, 3)
    thetas = jnp.zeros((6, counting.NUM_PARAMETERS))
    segments = []
    for driver in counting.ROLLOUTS:
        rollout = replace(counting.ROLLOUTS[driver](3), varying_horizon=varying)
        particles = rollout.reset(jax.random.key(3), 3)
        seed = particles.clock.seed
        both = []
        for _ in range(3):
            particles, segment = rollout.unroll(particles, thetas, 7)
            both.append(segment)
        segments.append(jax.tree.map(lambda *rows: np.concatenate(rows), *both))
    jax.tree.map(np.testing.assert_array_equal, *segments)
    for particle in range(6):
        ends = np.flatnonzero(segments[0].ended[:, particle]) + 1
        lengths = np.diff(ends, prepend=0)
        episodes = jnp.arange(len(lengths))
        limits = varying(jnp.tile(seed[particle], (len(lengths), 1)), episodes)
        np.testing.assert_array_equal(lengths, limits)
        assert len(set(lengths.tolist())) > 1


class Ramp:
    """Loss theta * t at step t, whose gradient is t."""

    def init(self, key):
        del key
        return jnp.float32(0)

    def step(self, theta, state):
        return state + 1, theta[0] * (state + 1), jnp.asarray(False)


def test_pes_is_unbiased_given_the_limits():
    """The sum of the estimates is that of the gradients of the episodes played.

    With K = 1 every episode begins at the start of an unroll, so that no step is idle.
    """
    varying, num_pairs, updates = VaryingHorizon(1, 6), 50, 15
    rollout = DeviceRollout(Ramp(), 6, varying_horizon=varying)
    estimator = PES(num_pairs=num_pairs, sigma=0.5, truncation_length=1, stagger=False)
    theta = jnp.ones(1)

    def excess(key: jax.Array) -> jax.Array:
        """Sum of the estimates minus that of the true gradients, and the latter."""
        init_key, key = jax.random.split(key)
        start = estimator.init(rollout, theta, init_key)

        def update(state, key):
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            # The gradient of step t is t.
            return state, (gradient[0], state.particles.clock.elapsed)

        keys = jax.random.split(key, updates)
        _, (gradients, elapsed) = jax.lax.scan(update, start, keys)
        before = jnp.concatenate([jnp.zeros_like(elapsed[:1]), elapsed[:-1]])
        return jnp.array([gradients.sum(), (before + 1).mean(1).sum()])

    sums = np.asarray(jax.vmap(excess)(jax.random.split(jax.random.key(2), 200)))
    difference = sums[:, 0] - sums[:, 1]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error
    assert error < 0.02 * sums[:, 1].mean()

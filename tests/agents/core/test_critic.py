"""The critic of PES: what it subtracts, what it learns, and that the mean stays.

Means are within 5 standard errors, as in tests/agents/test_estimator_math.py.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import device_rollout
from jax import lax
from recurrent import SIGMA, SYSTEMS, THETA, effects_of_unrolls, expected, float32
from sampling import (
    MAX_SIGMAS,
    ObservedRollout,
    assert_mean,
    draw_estimates,
    standard_error,
)

from pes_rl.agents import PES, AdaptiveSigma
from pes_rl.agents.core import critic as critics
from pes_rl.agents.core.critic import critic_losses, make_critic
from pes_rl.envs import DeviceRollout, Segment, make

HORIZON, K, UNROLLS = 6, 2, 3


def segment_of(loss, ended, simulated=None):
    """An unroll without divergence."""
    ended = jnp.asarray(ended, bool)
    simulated = jnp.ones_like(ended) if simulated is None else jnp.asarray(simulated)
    return Segment(float32(loss), ended, jnp.zeros_like(ended), simulated)


class Seen(DeviceRollout):
    """A rollout that gives the observations which it was made with."""

    def __init__(self, observation):
        super().__init__(SYSTEMS["linear"], HORIZON)
        object.__setattr__(self, "observation", observation)

    def observations(self, particles):
        return self.observation  # pyright: ignore[reportAttributeAccessIssue]


def critic_of(states, weights):
    """A critic of one-dimensional states that has seen them, with these weights."""
    fresh = make_critic(Seen(np.zeros((len(states), 0))), clocked(states))
    critic = critics._with_moments(fresh, states, jnp.ones(len(states), bool))
    return replace(critic, weights=weights)


def clocked(states):
    """Particles whose share of time is the state."""
    particles = device_rollout(8).reset(jax.random.key(0), len(states), members=1)
    clock = replace(
        particles.clock,
        elapsed=(1000 * np.asarray(states)[:, 0]).astype(np.int32),
        limit=np.full(len(states), 1000, np.int32),
    )
    return replace(particles, clock=clock)


def test_a_state_is_the_observation_and_the_share_of_the_time_limit():
    states = float32([[0.25], [0.5]])
    observation = np.array([[3.0, 4.0], [5.0, 6.0]])
    found = critics.critic_states(Seen(observation), clocked(states))
    assert found.tolist() == [[3, 4, 0.25], [5, 6, 0.5]]


def test_what_is_beyond_float32_is_cut_and_leaves_the_others_alone():
    observation = np.array([[1e300], [-1e30], [0.5], [-0.5]])
    states = critics.critic_states(Seen(observation), clocked(np.zeros((4, 1))))
    assert states[:, 0].tolist() == pytest.approx([1e15, -1e15, 0.5, -0.5])
    critic = make_critic(Seen(observation), clocked(np.zeros((4, 1))))
    segment = segment_of(np.ones((2, 4)), np.zeros((2, 4)))
    for _ in range(3):
        losses, critic = critic_losses(critic, states, states, segment, 0.9)
        assert np.isfinite(losses.delta).all() and np.isfinite(critic.value).all()


def test_losses_have_the_next_value_added_and_the_kept_one_taken_off():
    """Not after an end; and a particle that was lost counts for nothing."""
    states = float32([[0.0], [0.2], [0.6], [1.0]])
    critic = critic_of(states, jnp.zeros(2 + critics.NUM_WAVES).at[:2].set([3.0, 2.0]))
    critic = replace(critic, value=float32([10, 20, 30, 40]))
    after = float32([[0.5], [0.5], [0.6], [0.7]])
    mean, std = 0.45, np.std([0.0, 0.2, 0.6, 1.0])
    values = 3 + 2 * (np.array([0.5, 0.5, 0.6, 0.7]) - mean) / std
    loss = [[1, 2, 3, 0], [4, 0, 6, 0]]
    ended = [[0, 1, 0, 0], [0, 0, 1, 0]]
    simulated = np.array([[1, 1, 1, 0], [1, 0, 1, 0]], bool)
    segment = segment_of(loss, ended, simulated)
    losses, critic = critic_losses(critic, states, after, segment, 1.0)
    expected_delta = [5 + values[0] - 10, 2 - 20, 9 - 30, 0]
    np.testing.assert_allclose(losses.delta, expected_delta, rtol=1e-4)
    np.testing.assert_allclose(losses.std, np.std(expected_delta[:3]), rtol=1e-4)
    np.testing.assert_allclose(critic.value, values, rtol=1e-4)


def test_moments_are_those_of_the_states_with_weights_that_fall():
    """By the definition: an unroll of age a weighs f^a."""
    generator = np.random.default_rng(0)
    unrolls = generator.normal(size=(4, 16, 1)) + np.arange(4)[:, None, None]
    arrived = generator.random((4, 16)) < 0.8
    critic = make_critic(Seen(np.zeros((16, 0))), clocked(np.zeros((16, 1))))
    for states, here in zip(unrolls, arrived, strict=True):
        critic = critics._with_moments(critic, float32(states), jnp.asarray(here))
    weights = critics.FORGETTING ** np.arange(3, -1, -1)[:, None] * arrived
    weights = weights[..., None]
    mean = (weights * unrolls).sum((0, 1)) / weights.sum()
    squares = (weights * (unrolls - mean) ** 2).sum((0, 1))
    np.testing.assert_allclose(critic.count, weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(critic.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(critic.squares, squares, rtol=1e-4)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_it_learns_the_discounted_loss_to_go(discount):
    """States fall by 0.1 a step and pay themselves, until they are below 0.

    From x = 0.1 m the loss to go is sum_j g^j (x - 0.1 j), j from 0 to m.
    """
    generator = np.random.default_rng(0)

    def to_go(left):
        j = np.arange(left + 1)
        return np.sum(discount**j * (left - j)) / 10

    def unroll(left):
        """K steps from x = left / 10: (loss [K, N], ended [K, N], left after)."""
        step = np.arange(K)[:, None]
        loss = np.where(step <= left, (left - step) / 10, 0)
        return loss, step == left, np.maximum(left - K, 0)

    critic = make_critic(Seen(np.zeros((64, 0))), clocked(np.zeros((64, 1))))
    for _ in range(60):
        left = generator.integers(0, 11, 64)
        loss, ended, after = unroll(left)
        states = (float32(x[:, None] / 10) for x in (left, after))
        losses, critic = critic_losses(
            critic, *states, segment_of(loss, ended), discount
        )
    left = np.arange(11)
    found = critics._features(critic, float32(left[:, None] / 10)) @ critic.weights
    true = np.array([to_go(m) for m in left])
    np.testing.assert_allclose(found, true, atol=0.03 * true.max())
    assert losses.explained > 0.99


def with_constant(name, value):
    """A fixture that compiles with another value of a constant of the critic."""

    @pytest.fixture
    def changed(monkeypatch):
        monkeypatch.setattr(critics, name, value)
        jax.clear_caches()
        yield
        jax.clear_caches()

    return changed


few_features = with_constant("NUM_WAVES", 4)  # Any b will do, and this is the quickest.
small_penalty = with_constant("RIDGE", 0.01)


@pytest.mark.usefixtures("few_features")
@pytest.mark.parametrize("name", SYSTEMS)
def test_pes_with_a_critic_is_unbiased_whatever_it_has_learned(name):
    """Over whole episodes: it moves in every update and knows little at first."""
    unrolls = 3 * UNROLLS
    pes = PES(50, K, SIGMA, critic_discount=1.0)
    arguments = SYSTEMS[name], HORIZON, unrolls
    draws = draw_estimates(pes, *arguments, num_blocks=2).sum(1)
    mean = expected(SYSTEMS[name], K, unrolls, HORIZON).sum(0)
    assert_mean(draws, mean)
    plain = draw_estimates(PES(50, K, SIGMA), *arguments, num_blocks=2).sum(1)
    difference = np.abs(draws - plain).mean(0)
    assert (difference > 0.1 * plain.std(0)).all()  # It is not 0.


def test_it_is_unbiased_where_theta_decides_when_episodes_end():
    """On the same draws the difference to PES has mean 0, over whole episodes."""
    rollout, theta = device_rollout(8), float32([0.2, -0.1])
    updates = 6  # Three episodes at least: none is longer than 8 steps.

    def total(estimator, key):
        def update(state, draw):
            gradient, state, _ = estimator.estimate(rollout, theta, state, draw)
            return state, gradient

        state = estimator.init(rollout, theta, key)
        return lax.scan(update, state, jax.random.split(key, updates))[1].sum(0)

    def totals(estimator):
        keys = jax.random.split(jax.random.key(3), 400)
        return np.asarray(lax.map(partial(total, estimator), keys), float)

    pes = PES(16, 4, 0.5)
    plain, ours = totals(pes), totals(replace(pes, critic_discount=1.0))
    difference = ours - plain
    assert np.abs(difference.mean(0) / standard_error(difference)).max() < MAX_SIGMAS
    assert np.abs(difference).mean() > 0.1 * plain.std(0).mean()


@pytest.mark.usefixtures("small_penalty")
def test_a_good_critic_leaves_the_noise_of_the_own_unroll_and_no_bias():
    """A linear loss, lambda = 0: mean g_u, and (D + 1) |g_u|^2 a pair for the noise.

    g_u is the gradient by theta_u, of all that follows. Without a critic the mean is
    that of the single unroll.
    """
    rollout, theta = ObservedRollout(SYSTEMS["linear"], HORIZON), float32(THETA)
    pairs, warm, updates = 64, 600, 1200
    pes = PES(pairs, K, SIGMA, trace_decay=0.0, critic_discount=1.0)

    def update(state, key):
        gradient, state, report = pes.estimate(rollout, theta, state, key)
        return state, (gradient, report.critic_explained)

    keys = jax.random.split(jax.random.key(0), warm + updates)
    state = pes.init(rollout, theta, jax.random.key(1))
    _, (draws, explained) = jax.jit(lambda s: lax.scan(update, s, keys))(state)
    draws = np.asarray(draws[warm:], float).reshape(-1, UNROLLS, THETA.size)
    effects = effects_of_unrolls(K, HORIZON)
    single = expected(SYSTEMS["linear"], K, UNROLLS, HORIZON, trace_decay=0.0)
    bias, without = (np.abs(m - effects).max() for m in (draws.mean(0), single))
    assert bias < 0.15 * without
    noise = draws.var(0, ddof=1).sum()
    closed = (THETA.size + 1) * np.sum(effects**2) / pairs
    assert noise == pytest.approx(closed, rel=0.15)
    assert explained[warm:].mean() > 0.3


def test_it_is_refused_where_it_has_no_meaning():
    with pytest.raises(ValueError, match=r"discount=1\.5 must be above 0 and at"):
        PES(4, 2, 0.1, critic_discount=1.5)
    with pytest.raises(ValueError, match="restart_at_once an unroll has two"):
        PES(4, 2, 0.1, restart_at_once=True, critic_discount=0.9)
    with pytest.raises(ValueError, match="fitness_shaping=centered-ranks changes"):
        PES(4, 2, 0.1, fitness_shaping="centered-ranks", critic_discount=0.9)
    pes = PES(4, 2, 0.1, critic_discount=0.9)
    problem: Any = make("unrolled:toy-regression")
    with pytest.raises(ValueError, match="needs observations, and what is unrolled"):
        pes.init(DeviceRollout(problem, 100), jnp.zeros(2), jax.random.key(0))
    cut = replace(pes, pairs_per_chunk=2)
    with pytest.raises(ValueError, match=r"discount=0\.9 needs the losses of all"):
        cut.init(device_rollout(8), jnp.zeros(2), jax.random.key(0))
    long = Seen(np.zeros((2, critics.MAX_OBSERVATION + 1)))
    with pytest.raises(ValueError, match="all 1001 entries of the observation"):
        make_critic(long, clocked(np.zeros((2, 1))))


@pytest.mark.parametrize("adapts", [False, True])
def test_new_particles_keep_what_the_critic_has_learned(adapts):
    """As a run is resumed whose simulations cannot be saved."""
    rollout, theta = device_rollout(8), float32([0.2, -0.1])
    estimator: Any = PES(4, 4, 0.5, critic_discount=0.9)
    if adapts:
        estimator = AdaptiveSigma(estimator, 0.1)
    first = state = estimator.init(rollout, theta, jax.random.key(0))
    for number in range(3):
        key = jax.random.key(number)
        _, state, _ = estimator.estimate(rollout, theta, state, key)
    adopted = first.adopt(state)
    before, kept = (s.estimator if adapts else s for s in (state, adopted))
    assert np.any(before.critic.weights) and np.any(before.critic.value)
    np.testing.assert_array_equal(kept.critic.weights, before.critic.weights)
    np.testing.assert_array_equal(kept.critic.matrix, before.critic.matrix)
    assert not np.any(kept.critic.value)
    assert not np.any(kept.particles.clock.elapsed)

"""Exact identities of each draw: PES with one unroll is ES; accumulators add up."""

from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import SIGMA, SYSTEMS, THETA, float32

from pes_rl.agents import (
    ES,
    PES,
    Estimator,
    antithetic_perturbations,
    es_gradient,
    pes_gradient,
)
from pes_rl.envs import DeviceRollout, Segment

pytestmark = pytest.mark.user_compilation


def run_updates(estimator: Estimator, rollout: Any, theta: jax.Array) -> list[Any]:
    """Gradient, theta and particles of four steps of gradient descent."""
    key, start = jax.random.split(jax.random.key(4))
    state = estimator.init(rollout, theta, start)

    def estimate(theta: jax.Array, state: Any, key: jax.Array) -> Any:
        return estimator.estimate(rollout, theta, state, key)

    if rollout.on_device:
        estimate = jax.jit(estimate)
    history = []
    for update_key in jax.random.split(key, 4):
        gradient, state, _ = estimate(theta, state, update_key)
        theta = theta - 0.02 * gradient
        particles = state.particles if isinstance(estimator, PES) else state
        history.append((gradient, theta, particles))
    return history


@pytest.mark.parametrize("driver", ["device", "host"])
def test_pes_with_one_unroll_an_episode_is_full_es_exactly(driver):
    """Bit by bit, the particles too, several updates in a row."""
    if driver == "device":
        theta, horizon = float32(THETA), 7
        rollout = DeviceRollout(SYSTEMS["quadratic"], horizon)
    else:
        theta, horizon = jnp.ones(counting.NUM_PARAMETERS), 6
        # Episodes end early, each its own way.
        rollout = counting.host_rollout(horizon)
    es = run_updates(ES(3, SIGMA), rollout, theta)
    pes = run_updates(PES(3, horizon, SIGMA), rollout, theta)
    assert jnp.abs(es[-1][0]).min() > 0
    jax.tree.map(np.testing.assert_array_equal, es, pes)


def test_the_accumulator_sums_the_perturbations_of_the_running_episode():
    """Episodes of 3 steps in unrolls of 2: one ends inside, one with the unroll."""
    rollout, theta = counting.host_rollout(horizon=3), jnp.zeros(2)
    keys = [jax.random.key(update) for update in range(6)]
    e = [np.asarray(antithetic_perturbations(key, 2, 2, SIGMA)) for key in keys]
    estimator = PES(2, 2, SIGMA, restart_at_once=True)
    state = estimator.init(rollout, theta, jax.random.key(9))
    assert not state.accumulator.any()
    for key, accumulated in zip(
        keys, [e[0], e[1], 0 * e[2], e[3], e[4], 0 * e[5]], strict=True
    ):
        _, state, report = estimator.estimate(rollout, theta, state, key)
        np.testing.assert_array_equal(state.accumulator, accumulated)
        norms = np.linalg.norm(accumulated, axis=1)
        np.testing.assert_allclose(report.accumulator_norm, norms.mean(), rtol=1e-6)


def test_the_accumulator_adds_up_over_the_unrolls_of_an_episode():
    rollout, theta = counting.host_rollout(horizon=3), jnp.zeros(2)
    keys = [jax.random.key(update) for update in range(5)]
    e = [np.asarray(antithetic_perturbations(key, 2, 2, SIGMA)) for key in keys]
    estimator = PES(2, 1, SIGMA)
    state = estimator.init(rollout, theta, jax.random.key(9))
    for key, accumulated in zip(
        keys, [e[0], e[0] + e[1], 0 * e[2], e[3], e[3] + e[4]], strict=True
    ):
        _, state, _ = estimator.estimate(rollout, theta, state, key)
        np.testing.assert_array_equal(state.accumulator, accumulated)


def test_accumulators_of_a_pair_are_opposite_until_its_members_end_apart():
    """To the bit while both have ended in the same unrolls; afterwards they differ."""
    rollout, theta = counting.host_rollout(horizon=9), jnp.zeros(2)
    estimator = PES(6, 2, SIGMA)
    state = estimator.init(rollout, theta, jax.random.key(9))
    together, num_apart = np.ones(6, bool), 0
    for update in range(8):
        before = np.asarray(state.particles.clock.episode)
        _, state, _ = estimator.estimate(rollout, theta, state, jax.random.key(update))
        ended = (np.asarray(state.particles.clock.episode) - before).reshape(6, 2)
        together &= ended[:, 0] == ended[:, 1]
        sums = np.asarray(state.accumulator).reshape(6, 2, -1).sum(1)
        assert not sums[together].any()
        num_apart += np.count_nonzero(sums[~together].any(1))
        # Both may be 0, and so opposite, while both wait.
        waiting = np.asarray(state.particles.clock.elapsed).reshape(6, 2) == 0
        assert sums[~together & ~waiting.all(1)].any(1).all()
    assert num_apart > 5


def test_a_trace_decay_of_0_is_the_single_unroll_from_each_particle_s_own_state():
    """ES on the losses of the unroll, bit by bit, while theta and sigma change."""
    rollout, key = counting.host_rollout(horizon=6), jax.random.key(9)
    state = PES(3, 2, SIGMA).init(rollout, jnp.zeros(2), key)
    particles = rollout.reset(key, 3)
    for update in range(6):
        theta, sigma = jnp.full(2, 0.1 * update), SIGMA + 0.1 * update
        key = jax.random.key(update)
        estimator = PES(3, 2, sigma, trace_decay=0.0)
        gradient, state, _ = estimator.estimate(rollout, theta, state, key)
        e = antithetic_perturbations(key, 3, 2, sigma, blocks=True)
        particles, segment = rollout.unroll(
            particles, theta[None] + e, 2, single_episode=True
        )
        single = es_gradient(segment.loss.sum(0), e, sigma).sum(0)
        np.testing.assert_array_equal(gradient, single)
        assert jnp.abs(gradient).min() > 0
    assert particles.clock.episode.min() > 0


XI, E = np.array([8.0, -2.0]), np.array([1.0, 3.0])


@pytest.mark.parametrize(
    ("ends", "weighted", "after"),
    [
        pytest.param([], 1111 * (XI + E), XI + E, id="no end"),
        pytest.param([0], 1 * (XI + E) + 1110 * E, E, id="end at the first step"),
        pytest.param([1], 11 * (XI + E) + 1100 * E, E, id="end inside"),
        pytest.param([3], 1111 * (XI + E), 0 * E, id="end at the last step"),
        pytest.param([1, 2], 11 * (XI + E) + 1100 * E, E, id="two ends"),
        pytest.param([1, 3], 11 * (XI + E) + 1100 * E, 0 * E, id="two, the last last"),
    ],
)
@pytest.mark.parametrize("member", [0, 1])
def test_pes_gradient_of_four_steps_with_losses_1_10_100_1000(
    ends, weighted, after, member
):
    """One member's episode ends at the given steps, the other's never ends."""
    ended = np.zeros((4, 2), bool)
    ended[ends, member] = True
    loss = np.repeat([[1.0], [10.0], [100.0], [1000.0]], 2, axis=1)
    blank = np.zeros((4, 2), bool)
    sign = np.array([[1.0], [-1.0]])
    parts, accumulator = pes_gradient(
        Segment(float32(loss), jnp.asarray(ended), blank, ~blank),
        float32(sign * XI),
        float32(sign * E),
        0.5,
    )
    expected = sign * 1111 * (XI + E)
    expected[member] = sign[member] * weighted
    np.testing.assert_allclose(parts, expected / (2 * 0.5**2), rtol=1e-6)
    expected_accumulator = sign * (XI + E)
    expected_accumulator[member] = sign[member] * after
    np.testing.assert_array_equal(accumulator, expected_accumulator)


def test_the_accumulator_of_a_waiting_particle_is_zero():
    """One member's episode ends with the second of four steps, and no other begins."""
    ended, simulated = np.zeros((4, 2), bool), np.ones((4, 2), bool)
    ended[1, 0] = True
    simulated[2:, 0] = False
    loss = float32(np.where(simulated, 1.0, 0.0))
    parts, accumulator = pes_gradient(
        Segment(
            loss,
            jnp.asarray(ended),
            diverged=jnp.zeros((4, 2), bool),
            simulated=jnp.asarray(simulated),
        ),
        float32([XI, -XI]),
        float32([E, -E]),
        0.5,
    )
    expected_parts = np.stack([2 * (XI + E), -4 * (XI + E)]) / (2 * 0.5**2)
    np.testing.assert_allclose(parts, expected_parts, rtol=1e-6)
    np.testing.assert_array_equal(accumulator, np.stack([0 * E, -(XI + E)]))

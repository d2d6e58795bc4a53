"""Populations in chunks: the same estimates, to the rounding of a sum."""

import dataclasses
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import ES, NRES, PES, TruncatedES
from pes_rl.agents.core import chunks
from pes_rl.agents.core.chunks import pairs_at_once
from pes_rl.envs import ObservationMoments

pytestmark = pytest.mark.user_compilation

NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, HORIZON = 6, 2, 0.7, 6
THETA = jnp.array([0.25, -0.5])
ESTIMATORS: dict[str, Any] = {
    "pes": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "pes, staggered": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger=True),
    "pes, at once": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, restart_at_once=True),
    "nres": NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger=True),
    "es": ES(NUM_PAIRS, SIGMA),
    "truncated-es": TruncatedES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
}

DECAYING = PES(NUM_PAIRS, 1, SIGMA, trace_decay=0.7)


def run(rollout: Any, estimator: Any) -> list[Any]:
    """Gradient, state and report of six updates, sigma another in each."""

    def update(state: Any, number: int, sigma: jax.Array) -> Any:
        now = dataclasses.replace(estimator, sigma=sigma)
        theta, key = THETA + 0.1 * number, jax.random.key(number)
        return now.estimate(rollout, theta, state, key)

    estimate = jax.jit(update) if rollout.on_device else update
    state, history = estimator.init(rollout, THETA, jax.random.key(3)), []
    for number in range(6):
        history.append(estimate(state, number, jnp.float32(SIGMA + 0.1 * number)))
        state = history[-1][1]
    return history


@pytest.mark.parametrize(
    ("name", "size", "driver"),
    [(name, 3, driver) for name in ESTIMATORS for driver in counting.ROLLOUTS]
    + [("pes", 1, "host"), ("nres", 1, "device"), ("pes, decaying", 3, "host")],
)
def test_chunks_change_no_more_than_the_order_of_a_sum(name, size, driver):
    """Draws, simulations and counts are the same; PES's accumulators are recomputed."""
    estimator = DECAYING if name == "pes, decaying" else ESTIMATORS[name]
    moments = ObservationMoments(jnp.float32(1), jnp.zeros(2), jnp.ones(2))
    rollout = counting.ROLLOUTS[driver](HORIZON).normalized(moments)
    whole = run(rollout, estimator)
    chunked = run(rollout, dataclasses.replace(estimator, pairs_per_chunk=size))
    for (gradient, state, report), (expected, expected_state, expected_report) in zip(
        chunked, whole, strict=True
    ):
        assert np.abs(expected).min() > 0
        np.testing.assert_allclose(gradient, expected, rtol=1e-4)
        for count in ("particle_loss", "arrived", "env_steps", "episodes"):
            np.testing.assert_array_equal(
                getattr(report, count), getattr(expected_report, count)
            )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5),
            report,
            expected_report,
        )
        if name.startswith("pes"):
            assert state.accumulator.shape == (2 * NUM_PAIRS, 1)
            state, expected_state = state.particles, expected_state.particles
        jax.tree.map(np.testing.assert_array_equal, state, expected_state)


def test_chunked_pes_keeps_nothing_of_the_accumulators_size():
    rollout = counting.ROLLOUTS["device"](HORIZON)
    estimator = PES(NUM_PAIRS, 4, SIGMA, pairs_per_chunk=2)
    state = estimator.init(rollout, jnp.zeros(10_000), jax.random.key(0))
    assert max(leaf.size for leaf in jax.tree.leaves(state)) < 100
    assert state.past is not None
    assert state.past.key.shape == (2, 2)  # an episode of 6 steps has two unrolls
    endless = dataclasses.replace(rollout, horizon=None)
    kept = estimator.init(endless, jnp.zeros(10_000), jax.random.key(0))
    assert kept.past is None and kept.accumulator.shape == (12, 10_000)


def test_without_a_choice_as_many_pairs_as_fit(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_FLOATS", 1000)
    rollout = counting.ROLLOUTS["host"](HORIZON)
    for size, pairs in [(41, 12), (42, 6), (83, 6), (84, 4), (501, 1), (5000, 1)]:
        assert pairs_at_once(rollout, None, 12, size) == pairs
    fixed = counting.host_rollout(can_copy=False)
    assert pairs_at_once(fixed, None, 12, 5000) == 12


@pytest.mark.parametrize(
    ("rollout", "estimator", "message"),
    [
        ("device", ES(6, 0.1, pairs_per_chunk=4), "=4 does not divide .*=6; use 3"),
        ("device", ES(6, 0.1, pairs_per_chunk=0), "=0 does not divide .*=6; use 1"),
        (
            "device",
            NRES(6, 2, 0.1, orthogonal=True, pairs_per_chunk=2),
            "orthogonal needs all 6 pairs at once",
        ),
        ("fixed", PES(6, 2, 0.1, pairs_per_chunk=2), "cannot be copied; drop it"),
    ],
)
def test_a_population_that_cannot_be_cut_is_refused(rollout, estimator, message):
    rollouts = {**counting.ROLLOUTS, "fixed": counting.host_rollout}
    options = {"can_copy": False} if rollout == "fixed" else {"horizon": HORIZON}
    with pytest.raises(ValueError, match=message):
        estimator.init(rollouts[rollout](**options), THETA, jax.random.key(0))

"""GPES at its two ends: draw by draw it is PES, and it is NRES."""

from functools import cache
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import GPES, NRES, PES, Estimator, episode_noise
from pes_rl.agents.core import perturbations as perturbations_module

NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, HORIZON, NUM_UPDATES = 4, 2, 0.7, 6, 8
THETA = jnp.array([0.25, -0.5])
START = jax.random.key(3)


def run(estimator: Estimator, driver: str, start: jax.Array = START) -> list[Any]:
    """Gradient, state and report of each update, the theta of each its own."""
    rollout = counting.ROLLOUTS[driver](HORIZON)
    state = estimator.init(rollout, THETA, start)
    history = []
    for update in range(NUM_UPDATES):
        theta = THETA + 0.1 * update
        history.append(
            estimator.estimate(rollout, theta, state, jax.random.key(update))
        )
        state = history[-1][1]
    return history


@cache
def run_gpes(noise_period: int, stagger: bool, driver: str) -> list[Any]:
    return run(GPES(NUM_PAIRS, TRUNCATION_LENGTH, noise_period, SIGMA, stagger), driver)


def assert_same(history: list[Any], other: list[Any]) -> None:
    for (gradient, state, report), (expected, expected_state, expected_report) in zip(
        history, other, strict=True
    ):
        assert np.abs(expected).min() > 0
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)
        jax.tree.map(
            np.testing.assert_array_equal, state.particles, expected_state.particles
        )
        assert report.env_steps == expected_report.env_steps


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
@pytest.mark.parametrize("stagger", [False, True])
def test_a_period_of_a_whole_episode_is_nres(driver, stagger):
    """From the same start key: the noise is the same, and so is all else."""
    nres = run(NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger), driver)
    assert_same(run_gpes(HORIZON, stagger, driver), nres)


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
@pytest.mark.parametrize("stagger", [False, True])
def test_a_period_of_one_unroll_is_pes(driver, stagger, monkeypatch):
    """If PES is given the draws of GPES in place of its own."""
    gpes = run_gpes(TRUNCATION_LENGTH, stagger, driver)
    reset_key, key = jax.random.split(START)
    rollout = counting.ROLLOUTS[driver](HORIZON)
    first = rollout.reset(reset_key, NUM_PAIRS, stagger=stagger)
    clocks = [first.clock, *(state.particles.clock for _, state, _ in gpes)]
    perturbations = [
        SIGMA
        * episode_noise(
            jax.random.key_data(key),
            jnp.asarray(clock.episode),
            THETA.size,
            jnp.asarray(clock.elapsed) // TRUNCATION_LENGTH,
        )
        for clock in clocks
    ]
    draws = iter(perturbations)
    monkeypatch.setattr(
        perturbations_module, "draw_antithetic", lambda *_, **__: next(draws)
    )
    estimator = PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger)
    assert_same(gpes, run(estimator, driver, reset_key))


def test_noise_is_new_each_period_and_opposite_in_a_pair_whenever_they_come_to_it():
    key = jax.random.key_data(jax.random.key(0))

    def noise(episode: int, period: int) -> np.ndarray:
        both = jnp.full(4, episode), jnp.full(4, period)
        return np.asarray(episode_noise(key, both[0], 3, both[1]))

    draws = np.stack([noise(episode, p) for episode in (0, 1) for p in (0, 1, 2)])
    np.testing.assert_array_equal(draws[:, 0::2], -draws[:, 1::2])
    assert len(np.unique(np.abs(draws))) == draws.size // 2
    np.testing.assert_array_equal(draws[3], episode_noise(key, jnp.full(4, 1), 3))
    mixed = episode_noise(key, jnp.array([0, 1, 0, 0]), 3, jnp.array([2, 1, 0, 2]))
    for row, index in enumerate((2, 4, 0, 2)):
        np.testing.assert_array_equal(mixed[row], draws[index, row])


@pytest.mark.parametrize(
    ("noise_period", "use"), [(5, 4), (1, 2), (0, 2), (-4, 2), (7, 6)]
)
def test_a_period_that_is_no_multiple_of_the_unroll_is_refused(noise_period, use):
    message = f"noise_period={noise_period} must be a multiple .*=2; use {use}, for"
    with pytest.raises(ValueError, match=message):
        GPES(1, 2, noise_period, 0.1)

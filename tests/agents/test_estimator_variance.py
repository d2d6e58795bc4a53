"""Variances of the estimators against closed forms; see `test_estimator_math.py`."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import (
    SIGMA,
    SYSTEMS,
    THETA,
    expected,
    step_gradients,
)
from sampling import MAX_SIGMAS, assert_mean, draw_estimates, standard_error

from pes_rl.agents import (
    ES,
    GPES,
    NRES,
    PES,
    antithetic_perturbations,
    es_gradient,
)

NUM_PAIRS = 50


@pytest.mark.parametrize(
    ("truncation_length", "num_unrolls", "trace_decay"),
    [(1, 6, 1.0), (2, 3, 1.0), (2, 3, 0.6)],
)
def test_the_variance_of_pes_is_the_closed_form(
    truncation_length, num_unrolls, trace_decay
):
    """For one pair, D sum_mt |h_mt|^2 + sum_mt h_mt . h_tm; P pairs divide it by P.

    h_mt sums, over unrolls u from max(m, t) on, lambda^(u - m) times the gradient of
    their losses by unroll t's perturbation. The mean of |draw - gradient|^2 is within 5
    standard errors.
    """
    system, horizon = SYSTEMS["linear"], truncation_length * num_unrolls
    by_unroll = np.zeros((num_unrolls, num_unrolls, THETA.size))
    for t in range(horizon):
        for tau, gradient in enumerate(step_gradients(system, t, [0] * (t + 1))):
            by_unroll[t // truncation_length, tau // truncation_length] += gradient
    h = np.zeros_like(by_unroll)
    for m in range(num_unrolls):
        for t in range(num_unrolls):
            unrolls = np.arange(max(m, t), num_unrolls)
            h[m, t] = trace_decay ** (unrolls - m) @ by_unroll[unrolls, t]
    variance = THETA.size * np.sum(h**2) + np.einsum("mtd,tmd->", h, h)

    estimator = PES(NUM_PAIRS, truncation_length, SIGMA, trace_decay=trace_decay)
    draws = draw_estimates(estimator, system, horizon, num_unrolls, num_blocks=4)
    gradient = expected(
        system, truncation_length, num_unrolls, horizon, trace_decay=trace_decay
    ).sum(0)
    np.testing.assert_allclose(gradient, np.einsum("mmd->d", h))
    squares = np.sum((draws.sum(1) - gradient) ** 2, axis=1)
    assert_mean(squares[:, None], np.array([variance / NUM_PAIRS]))


ORTHOGONAL = {
    "nres": NRES(NUM_PAIRS, 2, SIGMA, orthogonal=True),
    "staggered nres": NRES(NUM_PAIRS, 2, SIGMA, stagger=True, orthogonal=True),
    "gpes": GPES(NUM_PAIRS, 1, 3, SIGMA, orthogonal=True),
    "es": ES(NUM_PAIRS, SIGMA, orthogonal=True),
}


UNROLLS = {"es": 1, "gpes": 6}


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("nres", "linear"),
        ("es", "linear"),
        ("es", "cubic"),
        pytest.param("gpes", "linear", marks=pytest.mark.slow),
        pytest.param("staggered nres", "linear", marks=pytest.mark.slow),
        pytest.param("nres", "cubic", marks=pytest.mark.slow),
    ],
)
def test_orthogonal_perturbations_leave_the_mean_and_lower_the_variance(name, system):
    """Against the same estimator with independent ones, its mean tested above.

    Of D = 3, blocks of pairs leave 2 / D of a linear loss's (D + 1) / D.
    """
    estimator, num_unrolls = ORTHOGONAL[name], UNROLLS.get(name, 3)
    other = replace(estimator, orthogonal=False)
    draws, independent = (
        draw_estimates(e, SYSTEMS[system], 6, num_unrolls).sum(1)
        for e in (estimator, other)
    )
    errors = np.hypot(standard_error(draws), standard_error(independent))
    z = (draws.mean(0) - independent.mean(0)) / errors
    assert np.abs(z).max() < MAX_SIGMAS
    assert draws.var(0).sum() < 0.8 * independent.var(0).sum()


@pytest.mark.parametrize(("num_pairs", "orthogonal"), [(6, 1), (3, 1), (6, 0)])
def test_the_variance_of_es_on_a_linear_loss_is_the_closed_form(num_pairs, orthogonal):
    """(D + 2) / P - 1 times |g|^2 with orthogonal pairs, else (D + 1) / P."""
    size, slope = 6, jnp.arange(1.0, 7.0)

    def squared_error(key: jax.Array) -> jax.Array:
        perturbation = antithetic_perturbations(
            key, num_pairs, size, SIGMA, orthogonal=bool(orthogonal)
        )
        parts = es_gradient(perturbation @ slope, perturbation, SIGMA)
        return jnp.sum((parts.sum(0) - slope) ** 2) / jnp.sum(slope**2)

    draws = jax.vmap(squared_error)(jax.random.split(jax.random.key(3), 4000))
    variance = (size + 2) / num_pairs - 1 if orthogonal else (size + 1) / num_pairs
    assert_mean(np.asarray(draws, np.float64)[:, None], np.array([variance]))

"""The estimators against closed forms.

The parameters stay frozen, and the mean over many independent draws is compared with
theory by z-scores: each coordinate within 5 standard errors. A right estimator fails
that with probability 8e-7 a coordinate (t distribution of 500 draws), 1e-4 for this
file; and the seeds are fixed. Each such test also demands that its standard error be
small beside what it measures, so that a wrong one cannot pass for lack of draws.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import (
    NUM_STEPS,
    SIGMA,
    SYSTEMS,
    THETA,
    expected,
    float32,
)
from sampling import MAX_SIGMAS, NUM_DRAWS, assert_mean, draw_estimates, standard_error

from pes_rl.agents import (
    ES,
    GPES,
    NRES,
    PES,
    TruncatedES,
)

NUM_PAIRS = 50


@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_the_closed_form_is_the_gradient_by_autodiff(name):
    def whole_loss(theta: jax.Array) -> jax.Array:
        state, total = (jnp.int32(0), jnp.zeros(2)), jnp.float32(0)
        for _ in range(NUM_STEPS):
            state, loss, _ = SYSTEMS[name].step(theta, state)
            total = total + loss
        return total

    (closed_form,) = expected(SYSTEMS[name], NUM_STEPS, 1, NUM_STEPS)
    gradient = jax.jit(jax.grad(whole_loss))(float32(THETA))
    np.testing.assert_allclose(gradient, closed_form, rtol=1e-4)


@pytest.mark.parametrize("name", SYSTEMS)
def test_full_es_is_unbiased(name):
    draws = draw_estimates(ES(NUM_PAIRS, SIGMA), SYSTEMS[name], 6, num_unrolls=1)
    assert_mean(draws[:, 0], expected(SYSTEMS[name], 6, 1, 6)[0])


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls", "at_once", "episodes"),
    [
        pytest.param(1, 6, 6, False, 1, id="one step an unroll"),
        pytest.param(2, 6, 3, True, 1, id="K divides T"),
        pytest.param(3, 7, 3, False, 1, id="the third unroll ends early"),
        pytest.param(3, 7, 7, True, 3, id="three episodes in seven unrolls"),
        pytest.param(5, 7, 7, True, 5, id="five episodes in seven unrolls"),
    ],
)
def test_pes_is_unbiased_over_a_period_and_in_each_unroll(
    name, truncation_length, horizon, num_unrolls, at_once, episodes
):
    system = SYSTEMS[name]
    mean = expected(system, truncation_length, num_unrolls, horizon, at_once=at_once)
    if name != "cubic":  # Where smoothing changes nothing, a period is whole episodes.
        whole = expected(system, horizon, 1, horizon)[0]
        np.testing.assert_allclose(mean.sum(0), episodes * whole, rtol=1e-12)
    estimator = PES(NUM_PAIRS, truncation_length, SIGMA, restart_at_once=at_once)
    draws = draw_estimates(estimator, system, horizon, num_unrolls)
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(NUM_DRAWS, -1), mean.ravel(), precision=0.1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_pes_is_unbiased_while_sigma_changes_within_episodes(name):
    sigmas = (0.3, 0.15, 0.4)
    mean = expected(SYSTEMS[name], 2, 3, 6, at_once=True, sigmas=sigmas)
    estimator = PES(NUM_PAIRS, 2, SIGMA, restart_at_once=True)
    draws = draw_estimates(estimator, SYSTEMS[name], 6, 3, num_blocks=2, sigmas=sigmas)
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(len(draws), -1), mean.ravel(), precision=0.1)


@pytest.mark.parametrize(
    ("trace_decay", "truncation_length", "horizon", "num_unrolls", "at_once", "sigmas"),
    [
        pytest.param(0.0, 2, 6, 3, False, (SIGMA,) * 9, id="single unrolls"),
        pytest.param(0.6, 3, 7, 7, True, (SIGMA,) * 9, id="three episodes"),
        pytest.param(0.6, 2, 6, 3, False, (0.3, 0.15, 0.4), id="sigma changes"),
    ],
)
def test_a_trace_decay_weighs_the_effects_of_earlier_unrolls(
    trace_decay, truncation_length, horizon, num_unrolls, at_once, sigmas
):
    """On the cubic system, and it is far from the mean of PES."""
    arguments = (SYSTEMS["cubic"], truncation_length, num_unrolls, horizon)
    options: Any = {"at_once": at_once, "sigmas": sigmas}
    mean = expected(*arguments, trace_decay=trace_decay, **options)
    whole = expected(*arguments, **options)
    estimator = PES(
        NUM_PAIRS,
        truncation_length,
        SIGMA,
        restart_at_once=at_once,
        trace_decay=trace_decay,
    )
    draws = draw_estimates(
        estimator, SYSTEMS["cubic"], horizon, num_unrolls, num_blocks=2, sigmas=sigmas
    )
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(len(draws), -1), mean.ravel(), precision=0.1)
    total = draws.sum(1)
    z = (total.mean(0) - whole.sum(0)) / standard_error(total)
    assert np.abs(z).max() > 5 * MAX_SIGMAS


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("at_once", [False, True])
def test_staggered_pes_is_unbiased_with_every_pair_at_its_own_phase(name, at_once):
    limits = [max((pair + 1) * 7 // NUM_PAIRS, 1) for pair in range(NUM_PAIRS)]
    by_limit = {
        k: expected(SYSTEMS[name], 3, 7, 7, first_limit=k, at_once=at_once)
        for k in set(limits)
    }
    mean = np.mean([by_limit[k] for k in limits], axis=0)
    estimator = PES(NUM_PAIRS, 3, SIGMA, True, at_once)
    draws = draw_estimates(estimator, SYSTEMS[name], 7, num_unrolls=7)
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(NUM_DRAWS, -1), mean.ravel(), precision=0.1)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls", "sigmas"),
    [
        pytest.param(2, 6, 3, (SIGMA,) * 9, id="K divides T"),
        pytest.param(
            3, 7, 6, (SIGMA,) * 9, id="two episodes that end within an unroll"
        ),
        # The first sigma of an episode is the one that counts.
        pytest.param(2, 4, 4, (0.3, 0.6, 0.2, 0.1), id="sigma changes"),
    ],
)
def test_nres_is_unbiased_over_a_period_and_in_each_unroll(
    name, truncation_length, horizon, num_unrolls, sigmas
):
    mean = expected(
        SYSTEMS[name],
        truncation_length,
        num_unrolls,
        horizon,
        noise_period=NUM_STEPS,
        sigmas=sigmas,
    )
    estimator = NRES(NUM_PAIRS, truncation_length, SIGMA)
    draws = draw_estimates(
        estimator, SYSTEMS[name], horizon, num_unrolls, num_blocks=2, sigmas=sigmas
    )
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(len(draws), -1), mean.ravel(), precision=0.1)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("truncation_length", "noise_period", "horizon", "num_unrolls", "sigmas"),
    [
        pytest.param(1, 2, 6, 6, (SIGMA,) * 9, id="M divides T"),
        pytest.param(1, 3, 5, 5, (SIGMA,) * 9, id="a period is cut short"),
        pytest.param(2, 4, 7, 8, (SIGMA,) * 9, id="a period and an unroll are cut"),
        pytest.param(1, 2, 4, 4, (0.3, 0.15, 0.4, 0.2), id="sigma changes"),
    ],
)
def test_gpes_is_unbiased_over_a_period_and_in_each_unroll(
    name, truncation_length, noise_period, horizon, num_unrolls, sigmas
):
    mean = expected(
        SYSTEMS[name],
        truncation_length,
        num_unrolls,
        horizon,
        noise_period=noise_period,
        sigmas=sigmas,
    )
    estimator = GPES(NUM_PAIRS, truncation_length, noise_period, SIGMA)
    draws = draw_estimates(
        estimator, SYSTEMS[name], horizon, num_unrolls, num_blocks=2, sigmas=sigmas
    )
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(len(draws), -1), mean.ravel(), precision=0.1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_nres_has_the_expectation_of_full_es(name):
    """Over an episode; PES smooths otherwise, which the cubic system shows."""
    over_an_episode = expected(SYSTEMS[name], 2, 3, 6, noise_period=NUM_STEPS).sum(0)
    full = expected(SYSTEMS[name], 6, 1, 6)[0]
    np.testing.assert_allclose(over_an_episode, full, rtol=1e-12)
    pes = expected(SYSTEMS[name], 2, 3, 6).sum(0)
    assert np.allclose(pes, full, rtol=1e-6) == (name != "cubic")


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls"), [(2, 6, 3), (3, 7, 9)]
)
def test_truncated_es_misses_exactly_what_reaches_beyond_the_unroll(
    name, truncation_length, horizon, num_unrolls
):
    arguments = (SYSTEMS[name], truncation_length, num_unrolls, horizon)
    seen = expected(*arguments, truncated=True)
    whole = expected(*arguments)
    estimator = TruncatedES(NUM_PAIRS, truncation_length, SIGMA)
    draws = draw_estimates(estimator, SYSTEMS[name], horizon, num_unrolls)
    assert_mean(draws.sum(1), seen.sum(0))
    assert_mean(draws.reshape(NUM_DRAWS, -1), seen.ravel(), precision=0.1)
    total = draws.sum(1)
    z = (total.mean(0) - whole.sum(0)) / standard_error(total)
    assert np.abs(z).max() > 10 * MAX_SIGMAS

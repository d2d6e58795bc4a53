"""Agents that search rather than estimate a gradient: `ars` and `random-search`."""

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from pes_rl.agents import (
    ARS,
    ES,
    RandomSearch,
    antithetic_perturbations,
    ars_direction,
    normalize_by_return_std,
)
from pes_rl.agents.random_search import draw_uniformly
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig

NUM_PAIRS, SIGMA, HORIZON, DIVERGED_LOSS, RADIUS = 4, 0.7, 6, -100.0, 2.0
THETA = jnp.array([0.25, -0.5])
START_KEY = jax.random.key(8)
UPDATE_KEYS = [jax.random.key(100 + update) for update in range(4)]


def make_particles(members: int, diverges_at: int | None) -> list[reference.Particle]:
    environment = counting.HostCounting(HORIZON, diverges_at)
    pair_keys = jax.random.split(START_KEY, 2 * NUM_PAIRS // members)
    system = counting.CountingSystem(environment, pair_keys)
    return [
        reference.Particle(system, i // members, HORIZON, HORIZON, DIVERGED_LOSS)
        for i in range(2 * NUM_PAIRS)
    ]


def run(estimator, driver, diverges_at):
    """Gradient, state and report of each update."""
    rollout = counting.ROLLOUTS[driver](HORIZON, DIVERGED_LOSS, diverges_at=diverges_at)
    state, history = estimator.init(rollout, THETA, START_KEY), []
    for key in UPDATE_KEYS:
        history.append(estimator.estimate(rollout, THETA, state, key))
        state = history[-1][1]
    return history


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
@pytest.mark.parametrize("num_top_pairs", [1, 3, NUM_PAIRS])
def test_ars_is_its_transcription(driver, num_top_pairs):
    history = run(ARS(NUM_PAIRS, num_top_pairs, SIGMA), driver, 3)
    perturbations = [
        antithetic_perturbations(key, NUM_PAIRS, THETA.size, SIGMA)
        for key in UPDATE_KEYS
    ]
    expected = reference.ars(
        make_particles(2, 3),
        np.asarray(THETA),
        np.stack(perturbations),
        SIGMA,
        num_top_pairs,
    )
    np.testing.assert_allclose(
        [gradient for gradient, _, _ in history], expected, rtol=1e-5, atol=1e-5
    )


def test_ars_with_every_pair_is_es_by_the_spread_of_returns():
    for (ars, _, _), (es, _, report) in zip(
        run(ARS(NUM_PAIRS, NUM_PAIRS, SIGMA), "host", None),
        run(ES(NUM_PAIRS, SIGMA), "host", None),
        strict=True,
    ):
        normalised = normalize_by_return_std(es, report.particle_loss, SIGMA)
        np.testing.assert_allclose(ars, normalised, rtol=1e-5)


def test_equal_losses_give_no_direction():
    equal = jnp.full(4, 0.1)
    assert not ars_direction(equal, jnp.ones((4, 3)), 2, 0.1).any()


@pytest.mark.parametrize("num_top_pairs", [0, 5, -1])
def test_a_number_of_top_pairs_that_cannot_be_is_refused(num_top_pairs):
    message = f"num_top_pairs={num_top_pairs} must be between 1 and num_pairs=4; use 2"
    with pytest.raises(ValueError, match=message):
        ARS(4, num_top_pairs, 0.1)


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
@pytest.mark.parametrize("diverges_at", [None, 3])
def test_random_search_is_its_transcription(driver, diverges_at):
    """A diverged simulation is never best, though its stated loss is the lowest."""
    history = run(RandomSearch(2 * NUM_PAIRS, RADIUS), driver, diverges_at)
    candidates = [
        draw_uniformly(key, THETA - RADIUS, THETA + RADIUS, 2 * NUM_PAIRS)
        for key in UPDATE_KEYS
    ]
    expected = reference.random_search(
        make_particles(1, diverges_at), np.stack(candidates)
    )
    for (gradient, state, _), (best, loss) in zip(history, expected, strict=True):
        np.testing.assert_array_equal(state.best, best)
        np.testing.assert_array_equal(gradient, THETA - best)
        assert state.best_loss == loss > DIVERGED_LOSS
    assert (diverges_at is None) == all(report.diverged == 0 for *_, report in history)


def test_candidates_fill_the_box_between_their_bounds():
    low, high = jnp.array([0.5, -5.0]), jnp.array([1.5, 1.0])
    draws = np.asarray(draw_uniformly(jax.random.key(0), low, high, 1000))
    # Misses the outer hundredth of a side with probability 0.995^1000 = 0.7%; seeded.
    np.testing.assert_allclose(draws.min(0), low, atol=0.06)
    np.testing.assert_allclose(draws.max(0), high, atol=0.06)
    assert (draws >= np.asarray(low)).all()
    assert (draws <= np.asarray(high)).all()


def test_bounds_around_the_first_parameters_are_a_radius():
    by_radius = run(RandomSearch(2 * NUM_PAIRS, RADIUS), "host", None)
    bounds = (THETA - RADIUS, THETA + RADIUS)
    by_bounds = run(RandomSearch(2 * NUM_PAIRS, search_bounds=bounds), "host", None)
    for (one, _, _), (other, _, _) in zip(by_radius, by_bounds, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bounds_that_do_not_hold_the_first_parameters_are_kept():
    low, high = THETA + 5.0, THETA + 6.0
    for _, state, _ in run(RandomSearch(4, search_bounds=(low, high)), "host", None):
        assert (state.best >= low).all()
        assert (state.best <= high).all()


@pytest.mark.parametrize(
    "options", [{}, {"search_radius": 1.0, "search_bounds": (-THETA, THETA)}]
)
def test_either_a_radius_or_bounds_are_needed(options):
    with pytest.raises(ValueError, match="needs a search_radius, or"):
        RandomSearch(4, **options)


def test_plain_sgd_of_rate_one_goes_to_the_best_parameters():
    learner = Learner(
        counting.ROLLOUTS["host"](HORIZON),
        RandomSearch(8, RADIUS),
        OptimizerConfig("sgd", 1.0),
        total_timesteps=1000,
    )
    state = learner.init(THETA, jax.random.key(0))
    losses = []
    for _ in range(4):
        before = np.abs(state.theta)
        state, _ = learner.run(state, 1)
        losses.append(float(state.estimator.best_loss))
        best = np.asarray(state.estimator.best)
        rounding = 2.0**-23 * (before + np.abs(best))  # Of two subtractions.
        assert (np.abs(np.asarray(state.theta) - best) <= rounding).all()
        assert (np.abs(state.estimator.best - THETA) <= RADIUS).all()
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_a_search_radius_that_is_not_positive_is_refused(radius):
    with pytest.raises(ValueError, match=f"search_radius={radius} must be above 0"):
        RandomSearch(4, radius)

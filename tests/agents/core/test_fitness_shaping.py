"""Fitness shaping beside its definitions, and what the shaped estimates have as mean.

The tests of a mean are z-scores over independent draws with fixed seeds, as in
test_estimator_math.py.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sampling import assert_mean

from pes_rl.agents import ARS, ES, NRES, PES, TruncatedES, normalize_by_return_std
from pes_rl.agents.core.fitness_shaping import centered_ranks, top_pairs
from pes_rl.config.train_config import make_config
from pes_rl.envs import DeviceRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig

ALL = np.ones(8, bool)
LOSS = np.array([3.0, -1.0, 3.0, 0.5, -1.0, 2.0, 3.0, 7.0], np.float32)
THETA = jnp.array([0.25, -0.5])


def test_ranks_are_the_mean_of_the_signs_of_all_differences():
    expected = [sum(np.sign(x - y) for y in LOSS) / (2 * 7) for x in LOSS]
    ranks, std = centered_ranks(jnp.asarray(LOSS), ALL)
    np.testing.assert_allclose(ranks, expected, rtol=1e-6)
    assert std == pytest.approx(np.std(expected))
    assert ranks.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("transform", [np.exp, lambda x: 1e6 * x - 3, np.cbrt])
def test_ranks_do_not_change_with_an_increasing_transform(transform):
    ranks, _ = centered_ranks(jnp.asarray(LOSS), ALL)
    again, _ = centered_ranks(jnp.asarray(transform(LOSS), jnp.float32), ALL)
    np.testing.assert_array_equal(again, ranks)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3])
def test_equal_losses_have_no_ranks_and_no_spread(value):
    equal = jnp.full(6, value)
    ranks, std = centered_ranks(equal, np.ones(6, bool))
    assert not ranks.any() and std == 0
    assert top_pairs(equal, np.ones(6, bool), 2)[1] == 0
    assert not normalize_by_return_std(jnp.ones(3), equal, 0.1, std).any()


def test_top_pairs_by_the_better_member():
    shaped, std = top_pairs(jnp.asarray(LOSS), ALL, 2)
    # Better members: -1, 0.5, -1, 3.
    np.testing.assert_array_equal(shaped, 2 * LOSS * np.repeat([1, 0, 1, 0], 2))
    assert std == pytest.approx(np.std([3.0, -1.0, -1.0, 2.0]))


def test_lost_particles_are_neither_ranked_nor_chosen():
    """Their losses are 0, and what is left is shaped as a population of its own."""
    arrived = np.repeat([True, True, False, True], 2)
    loss = jnp.where(arrived, LOSS, 0.0)
    for shape in (centered_ranks, partial(top_pairs, num_top_pairs=2)):
        shaped, std = shape(loss, arrived)
        expected, expected_std = shape(loss[arrived], np.ones(6, bool))
        np.testing.assert_allclose(shaped[arrived], expected, rtol=1e-6)
        assert not shaped[~arrived].any()
        assert std == pytest.approx(float(expected_std))
    few = np.repeat([False, True, False, False], 2)
    shaped, _ = top_pairs(jnp.where(few, LOSS, 0.0), few, 3)
    np.testing.assert_array_equal(shaped[few], LOSS[few])


ESTIMATORS: dict[str, Any] = {
    "pes": PES(4, 2, 0.7, stagger=True),
    "nres": NRES(4, 2, 0.7, orthogonal=True),
    "truncated-es": TruncatedES(4, 3, 0.7),
}


def run(estimator: Any, rollout: Any, updates: int = 4) -> list[Any]:
    state, history = estimator.init(rollout, THETA, jax.random.key(8)), []
    for update in range(updates):
        key = jax.random.key(100 + update)
        history.append(estimator.estimate(rollout, THETA, state, key))
        state = history[-1][1]
    return history


@pytest.mark.parametrize(
    ("name", "driver"), [*((name, "host") for name in ESTIMATORS), ("pes", "device")]
)
def test_all_pairs_as_the_top_ones_change_no_bit(name, driver):
    rollout = counting.ROLLOUTS[driver](6, 2.5)
    shaped = replace(ESTIMATORS[name], fitness_shaping="top-pairs", num_top_pairs=4)
    for one, other in zip(
        run(shaped, rollout), run(ESTIMATORS[name], rollout), strict=True
    ):
        gradient, state, report = one
        assert report.loss_std == pytest.approx(
            float(report.particle_loss.std()), rel=1e-5
        )
        one = gradient, state, replace(report, loss_std=None)
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_top_pairs_of_whole_episodes_by_their_spread_are_ars():
    """K = T; normalised returns then divide by the std of the used ones."""
    rollout = counting.ROLLOUTS["host"](6, 2.5)
    estimator = PES(4, 6, 0.7, fitness_shaping="top-pairs", num_top_pairs=3)
    for (gradient, _, report), (expected, _, _) in zip(
        run(estimator, rollout), run(ARS(4, 3, 0.7), rollout), strict=True
    ):
        normalised = normalize_by_return_std(
            gradient, report.particle_loss, 0.7, report.loss_std
        )
        np.testing.assert_allclose(normalised, expected, rtol=1e-5)


@dataclass(frozen=True)
class Slopes:
    """The t-th step of an episode has the loss slope_t theta_0."""

    slopes: tuple[float, ...]
    size: int = 1

    def init(self, key: jax.Array) -> Any:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: Any) -> Any:
        return state + 1, jnp.array(self.slopes)[state] * theta[0], jnp.array(False)


def draw(estimator: Any, system: Slopes, num_draws: int) -> np.ndarray:
    """Independent estimates of an episode's unrolls. # shape=(draws, unrolls, D)"""
    unrolls = len(system.slopes)
    rollout = DeviceRollout(system, unrolls)
    theta = jnp.full(system.size, 0.3)

    def one(key: jax.Array) -> jax.Array:
        def update(state: Any, key: jax.Array) -> Any:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            return state, gradient

        start_key, *keys = jax.random.split(key, unrolls + 1)
        state = estimator.init(rollout, theta, start_key)
        return lax.scan(update, state, jnp.stack(keys))[1]

    keys = jax.random.split(jax.random.key(5), num_draws)
    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


def mean_rank_slope(num_pairs: int, sigma: float) -> float:
    """Mean estimate from ranks of a linear loss, along its gradient's direction.

    N - 2 of the N - 1 others have independent perturbations, and one the opposite:
    E[z sign(z - z')] is 1 / sqrt(pi) for the former and sqrt(2 / pi) for the latter.
    """
    others = 2 * num_pairs - 1
    mean = ((others - 1) / np.sqrt(np.pi) + np.sqrt(2 / np.pi)) / others
    return mean / (2 * sigma)


def test_ranks_of_a_linear_loss_have_its_direction_and_not_its_length():
    sigma, num_pairs = 0.4, 3
    estimator = ES(num_pairs, sigma, fitness_shaping="centered-ranks")
    draws = draw(estimator, Slopes((-40.0,), size=2), 20_000)[:, 0]
    assert_mean(draws[:, :1], np.array([-mean_rank_slope(num_pairs, sigma)]))
    error = draws[:, 1].std() / np.sqrt(len(draws))
    assert abs(draws[:, 1].mean()) < 5 * error


def test_ranks_of_unrolls_do_not_add_up_to_the_rank_of_their_sum():
    """Slopes of 3, -1 and -1: the episode's loss rises with theta, and ranks say no."""
    sigma, num_pairs, system = 0.4, 4, Slopes((3.0, -1.0, -1.0))
    pes = PES(num_pairs, 1, sigma)
    raw = draw(pes, system, 20_000).sum(1)
    assert_mean(raw, np.array([1.0]))
    ranked = draw(replace(pes, fitness_shaping="centered-ranks"), system, 20_000)
    slope = mean_rank_slope(num_pairs, sigma)
    assert_mean(ranked.reshape(len(ranked), 3), slope * np.array([1, -1, -1]), 0.1)


def test_top_pairs_of_a_linear_loss_stretch_the_estimate():
    """By E max(z1^2, z2^2) = 1 + 2 / pi for the better one of two pairs."""
    estimator = PES(2, 1, 0.4, fitness_shaping="top-pairs", num_top_pairs=1)
    draws = draw(estimator, Slopes((-2.0,)), 20_000)[:, 0]
    assert_mean(draws, np.array([-2 * (1 + 2 / np.pi)]))


def test_top_pairs_of_staggered_particles_are_those_of_the_better_phase():
    """The slope of the phase with high losses is never seen."""
    loss = np.array([100.0 + 3, 100.0 - 3, -1.0, 1.0], np.float32)  # e = 1, -1, 1, -1
    e = np.array([1.0, -1.0, 1.0, -1.0])
    shaped, _ = top_pairs(jnp.asarray(loss), np.ones(4, bool), 1)
    assert float(shaped @ e) / 4 == -1
    assert float(loss @ e) / 4 == (3 - 1) / 2


def test_normalised_returns_divide_by_the_spread_of_the_ranks():
    """And not by that of the losses, which is a thousand times as large."""
    options = OptimizerConfig("sgd", 0.1, normalize_returns=True)
    estimator = PES(4, 1, 0.4, fitness_shaping="centered-ranks")
    learner = Learner(DeviceRollout(Slopes((1e3,)), 1), estimator, options, 1000)
    state, report = learner.run(learner.init(jnp.zeros(1), jax.random.key(3)), 1)
    spread = np.std((np.arange(8) - 3.5) / 7)
    step = 0.1 * 2 * 0.4 / spread * report.gradient_norm
    np.testing.assert_allclose(state.theta, -step, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    def refuses(message: str, make: Any, *values: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            make(*values, **options)

    refuses(
        "must be none, centered-ranks or top-pairs",
        PES,
        4,
        2,
        0.1,
        fitness_shaping="ranks",
    )
    refuses(
        "num_top_pairs=None must be between 1 and num_pairs=4; use 2",
        NRES,
        4,
        2,
        0.1,
        fitness_shaping="top-pairs",
    )
    refuses(
        "num_top_pairs=2 has no meaning for fitness_shaping=none",
        TruncatedES,
        4,
        2,
        0.1,
        num_top_pairs=2,
    )
    refuses(
        "with restart_at_once an unroll has",
        PES,
        4,
        2,
        0.1,
        restart_at_once=True,
        fitness_shaping="centered-ranks",
    )
    refuses(
        "is what the agent ars does; use ars", ES, 4, 0.1, fitness_shaping="top-pairs"
    )
    chunked = NRES(4, 2, 0.1, pairs_per_chunk=2, fitness_shaping="centered-ranks")
    refuses(
        "needs the losses of all 4 pairs at once, here in chunks of 2",
        chunked.init,
        counting.ROLLOUTS["device"](6),
        THETA,
        jax.random.key(0),
    )
    refuses(
        "has no meaning for gpes",
        make_config,
        "swimmer",
        "gpes",
        fitness_shaping="centered-ranks",
    )


def test_settings_fit_what_is_shaped():
    config = make_config("swimmer", "pes", fitness_shaping="top-pairs", num_pairs=9)
    assert config.num_top_pairs == 4 and not config.restart_at_once
    given = make_config("swimmer", "nres", fitness_shaping="top-pairs", num_top_pairs=3)
    assert given.num_top_pairs == 3
    assert make_config("swimmer", "pes").restart_at_once

"""The summary of results/estimator_choice, and its measures of noise."""

import sys
from importlib import import_module
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from counting import CompiledRollout

from pes_rl.envs import PolicyProblem

STUDY = Path(__file__).parents[1] / "results" / "estimator_choice"

D, K = 2, 4


class Paying:
    """An environment that rewards the action, episode after episode of K steps."""

    on_device = True
    observation_size, horizon = 1, K
    action_low, action_high = (-100.0,), (100.0,)

    def reset(self, key):
        return jnp.float32(0), jnp.zeros(1)

    def step(self, state, action):
        return state, jnp.zeros(1), action[0], jnp.array(False)


def load(name):
    sys.path.insert(0, str(STUDY))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(STUDY))
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def summary():
    return load("summary")


@pytest.fixture(scope="module")
def noise():
    return load("noise")


def test_an_arm_is_close_as_often_as_resamples_of_two_seeds_say(summary):
    """Two seeds at 90 and 100 have a mean of 90, 95 or 100: 1/4, 1/2 and 1/4."""
    returns = {
        "best": np.array([100.0, 100.0]),
        "even": np.array([90.0, 100.0]),
        "far": np.array([90.0, 90.0]),
    }
    best, even, far = summary.task_rows("hopper", returns)
    assert (best["ratio"], even["ratio"], far["ratio"]) == (1, 0.95, 0.9)
    assert (best["close"], far["close"]) == (1, 0)
    # 4 standard deviations of 10,000 draws.
    assert even["close"] == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 1e4) ** 0.5)
    assert (even["low"], even["high"]) == (90, 100)


def test_the_table_counts_the_tasks_on_which_an_arm_is_close(summary):
    rows = summary.task_rows(
        "hopper", {"PES, lambda 1": np.full(3, 10.0), "NRES": np.full(3, 9.6)}
    )
    rows += summary.task_rows(
        "swimmer", {"PES, lambda 1": np.full(3, 300.0), "NRES": np.full(3, 200.0)}
    )
    table = summary.make_table(rows).splitlines()
    assert table[2].startswith("| PES, lambda 1 | **10.0**") and "2 of 2" in table[2]
    assert table[3].endswith("| 200.0 (200.0 to 200.0); 0.00 | 1 of 2 |")


def test_the_figure_has_a_panel_a_task(summary, tmp_path):
    arms = {"PES, lambda 1": 2.0, "PES, lambda 0": 1.0, "NRES": 3.0}
    arms |= {"PES, lambda 1, critic": 5.0, "PES, lambda 0, critic": 4.0}
    returns = {arm: np.full(3, value) for arm, value in arms.items()}
    rows = [
        *summary.task_rows("hopper", returns),
        *summary.task_rows("swimmer", returns),
    ]
    figure = summary.draw(tmp_path / "summary.png", rows)
    assert (tmp_path / "summary.png").stat().st_size > 0
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Hopper", "Swimmer"]
    lines = [box[0].get_ydata() for box in figure.axes[0].containers]
    np.testing.assert_array_equal(lines, [[1.0, 2.0], [4.0, 5.0]])


def test_what_is_kept_is_0_for_equal_members_1_for_independent_and_2_for_opposite(
    noise,
):
    """With a correlation r and equal variances it is 1 - r."""
    common, own = np.random.default_rng(0).normal(size=(2, 100_000, 2))
    first = common[:, :1]
    assert noise.share_kept(first + np.zeros(2)) == 0
    assert noise.share_kept(first * [1, -1]) == pytest.approx(2)
    assert noise.share_kept(own) == pytest.approx(1, abs=0.02)
    assert noise.share_kept(2 * first + own) == pytest.approx(1 - 4 / 5, abs=0.02)
    assert np.isnan(noise.share_kept(np.ones((9, 2))))


def test_the_tail_of_exponential_values_has_the_share_that_theory_says(noise):
    """Of the density exp(-x), the largest 1% has (1 + ln 100) / 100 of the sum."""
    values = np.random.default_rng(1).exponential(size=1_000_000)
    expected = 0.01 * (1 + np.log(100))
    assert noise.tail_share(values) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("estimator", ["pes", "nres", "truncated-es"])
def test_estimates_of_pairs_have_the_variance_of_a_linear_loss(noise, estimator):
    """The loss is -K theta_0, the gradient g, and e . g e / sigma^2 a pair's estimate.

    Its mean square is (D + 2) |g|^2, of which |g|^2 is signal.
    """
    problem = PolicyProblem(Paying(), lambda theta, _: theta[..., :1], 0.0)
    rollout = CompiledRollout(problem, K, 0.0)
    theta, seen = jnp.zeros(D), []
    for unroll in noise.unrolls(estimator, rollout, theta, K, 0.5):
        seen.append(unroll)
        if len(seen) == 200:
            break
    assert all((u.age == 0).all() and u.steps == 2 * noise.PAIRS * K for u in seen)
    squared = np.concatenate([u.squared for u in seen])
    expected = (D + 2) * K**2
    error = squared.std() / len(squared) ** 0.5
    assert abs(squared.mean() - expected) < 5 * error
    np.testing.assert_allclose([u.loss.sum(1) for u in seen], 0, atol=1e-4)

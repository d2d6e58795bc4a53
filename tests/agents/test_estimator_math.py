"""The estimators against closed forms.

The parameters stay frozen, and the mean over many independent draws is compared with
theory by z-scores: each coordinate within 5 standard errors, which a right estimator
fails with probability 6e-7 a coordinate (below 1e-4 for this file; and the seeds are
fixed). Each such test also demands that its standard error be small beside what it
measures, so that a wrong estimator cannot pass for lack of draws.
"""

from dataclasses import dataclass
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pes_rl.agents import ES, PES, Estimator, TruncatedES, pes_gradient
from pes_rl.envs import DeviceRollout, Segment

SIGMA = 0.3
MAX_SIGMAS = 5.0
THETA = np.array([0.5, -1.0, 0.8])
NUM_STEPS = 8

_generator = np.random.default_rng(0)
A = np.array([[0.9, 0.3], [-0.4, 0.7]])
B = _generator.normal(size=(2, THETA.size))
W = _generator.normal(size=(NUM_STEPS, 2)) + 1.0


def float32(array: Any) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


@dataclass(frozen=True)
class Recurrent:
    """s_t = A s_{t-1} + B theta, and the loss W_t s_t + curvature / 2 |s_t|^2.

    With curvature 0 each step's loss is linear in each step's theta, otherwise
    quadratic: Gaussian smoothing leaves the gradient of either as it is. First states
    are random with mean zero, and so without effect on the expected gradient.
    """

    curvature: float = 0.0

    def init(self, key: jax.Array) -> Any:
        return jnp.int32(0), 0.3 * jax.random.normal(key, (2,))

    def step(self, theta: jax.Array, state: Any) -> Any:
        t, s = state
        s = float32(A) @ s + float32(B) @ theta
        loss = float32(W)[t] @ s + 0.5 * self.curvature * (s @ s)
        return (t + 1, s), loss, jnp.array(False)

    def step_gradient(self, t: int, tau: int) -> np.ndarray:
        """Gradient of step t's loss by step tau's theta, at THETA. # shape=(D,)"""
        mean_state = sum(self._influence(t - k) for k in range(t + 1)) @ THETA
        return self._influence(t - tau).T @ (W[t] + self.curvature * mean_state)

    def _influence(self, age: int) -> np.ndarray:
        """Of a theta on the state that many steps later. # shape=(2, D)"""
        return np.linalg.matrix_power(A, age) @ B


def expected_sum(
    problem: Recurrent,
    truncation_length: int,
    num_unrolls: int,
    horizon: int,
    first_limit: int | None = None,
    truncated: bool = False,
) -> np.ndarray:
    """Expected sum of the estimates of the first unrolls, from step gradients alone.

    A step's loss depends on the thetas since its episode began, and the truncated
    estimate sees those among them that lie in the same unroll.
    """
    total = np.zeros(THETA.size)
    t, limit = 0, first_limit or horizon
    for _ in range(num_unrolls):
        seen_from = t if truncated else 0
        for _ in range(truncation_length):
            for tau in range(seen_from, t + 1):
                total += problem.step_gradient(t, tau)
            t += 1
            if t == limit:
                t, limit, seen_from = 0, horizon, 0
    return total


def draw_sums(
    estimator: Estimator,
    problem: Any,
    horizon: int,
    num_unrolls: int,
    num_draws: int,
    theta: np.ndarray = THETA,
) -> np.ndarray:
    """Independent draws of the summed estimates of an unroll after the other.

    Returns:
        # shape=(num_draws, D), dtype=float64
    """
    rollout = DeviceRollout(problem, horizon)

    def draw(key: jax.Array) -> jax.Array:
        key, start = jax.random.split(key)
        state = estimator.init(rollout, float32(theta), start)

        def update(state: Any, key: jax.Array) -> Any:
            gradient, state, _ = estimator.estimate(rollout, float32(theta), state, key)
            return state, gradient

        _, gradients = lax.scan(update, state, jax.random.split(key, num_unrolls))
        return gradients.sum(0)

    keys = jax.random.split(jax.random.key(17), num_draws)
    return np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)


def assert_mean(draws: np.ndarray, expected: np.ndarray, precision: float = 0.03):
    """Within MAX_SIGMAS standard errors, these being a small part of the expected."""
    standard_error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    assert np.linalg.norm(standard_error) < precision * np.linalg.norm(expected)
    z = (draws.mean(0) - expected) / standard_error
    assert np.abs(z).max() < MAX_SIGMAS, f"z-scores {z}"


PROBLEMS = {"linear": Recurrent(), "quadratic": Recurrent(curvature=0.5)}


def test_the_closed_form_is_the_gradient_by_autodiff():
    problem = PROBLEMS["quadratic"]

    def whole_loss(theta: jax.Array) -> jax.Array:
        state = (jnp.int32(0), jnp.zeros(2))
        _, losses = lax.scan(
            lambda s, _: problem.step(theta, s)[:2], state, length=NUM_STEPS
        )
        return losses.sum()

    expected = expected_sum(problem, NUM_STEPS, 1, NUM_STEPS)
    gradient = jax.grad(whole_loss)(float32(THETA))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_full_es_is_unbiased(name):
    draws = draw_sums(ES(2, SIGMA), PROBLEMS[name], 6, num_unrolls=1, num_draws=40_000)
    assert_mean(draws, expected_sum(PROBLEMS[name], 6, 1, 6))


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls"),
    [
        pytest.param(1, 4, 4, id="one step an unroll"),
        pytest.param(2, 6, 3, id="K divides T"),
        pytest.param(3, 7, 7, id="three episodes end inside seven unrolls"),
        pytest.param(5, 7, 7, id="two episodes in some unrolls"),
    ],
)
def test_pes_is_unbiased_over_a_period(name, truncation_length, horizon, num_unrolls):
    expected = expected_sum(PROBLEMS[name], truncation_length, num_unrolls, horizon)
    episodes = num_unrolls * truncation_length // horizon
    whole = expected_sum(PROBLEMS[name], horizon, 1, horizon)
    np.testing.assert_allclose(expected, episodes * whole, rtol=1e-12)
    estimator = PES(2, truncation_length, SIGMA)
    draws = draw_sums(estimator, PROBLEMS[name], horizon, num_unrolls, 40_000)
    assert_mean(draws, expected)


def test_pes_is_unbiased_in_every_single_unroll():
    """Not only over a period: each unroll's estimate is that of its own losses."""
    for num_unrolls in (1, 2, 3):
        expected = expected_sum(PROBLEMS["quadratic"], 3, num_unrolls, 7)
        estimator = PES(2, 3, SIGMA)
        draws = draw_sums(estimator, PROBLEMS["quadratic"], 7, num_unrolls, 20_000)
        assert_mean(draws, expected, precision=0.05)


@pytest.mark.parametrize("name", PROBLEMS)
def test_staggered_pes_is_unbiased_with_every_pair_at_its_own_phase(name):
    """Three pairs whose first episodes are 2, 4 and 7 steps long."""
    problem = PROBLEMS[name]
    expected = np.mean(
        [expected_sum(problem, 3, 7, 7, first_limit=limit) for limit in (2, 4, 7)],
        axis=0,
    )
    draws = draw_sums(PES(3, 3, SIGMA, stagger=True), problem, 7, 7, 30_000)
    assert_mean(draws, expected)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls"), [(2, 6, 3), (3, 7, 7)]
)
def test_truncated_es_misses_exactly_what_reaches_beyond_the_unroll(
    name, truncation_length, horizon, num_unrolls
):
    problem = PROBLEMS[name]
    arguments = (problem, truncation_length, num_unrolls, horizon)
    seen, whole = expected_sum(*arguments, truncated=True), expected_sum(*arguments)
    estimator = TruncatedES(2, truncation_length, SIGMA)
    draws = draw_sums(estimator, problem, horizon, num_unrolls, 20_000)
    assert_mean(draws, seen)
    standard_error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - whole) / standard_error).max() > 10 * MAX_SIGMAS


@dataclass(frozen=True)
class Cubic:
    """s_t = s_{t-1} + theta with the loss s_t^3, elementwise: smoothing matters.

    With n_u steps of the episode up to t in unroll u, s_t is normal with mean t theta
    and variance sigma^2 sum_u n_u^2, and the gradient of its expected cube by the mean
    is 3 t E[s_t^2]. ES knows a single unroll, so its smoothing is the stronger.
    """

    def init(self, key: jax.Array) -> Any:
        del key
        return jnp.zeros(THETA.size)

    def step(self, theta: jax.Array, state: Any) -> Any:
        state = state + theta
        return state, jnp.sum(state**3), jnp.array(False)


def smoothed_cubic_gradient(truncation_length: int, horizon: int) -> np.ndarray:
    total = np.zeros(THETA.size)
    for t in range(1, horizon + 1):
        steps = np.bincount(np.arange(t) // truncation_length)
        total += 3 * t * ((t * THETA) ** 2 + SIGMA**2 * np.sum(steps**2))
    return total


def test_pes_and_es_follow_their_own_smoothed_gradients():
    es, pes = smoothed_cubic_gradient(4, 4), smoothed_cubic_gradient(2, 4)
    draws = draw_sums(ES(1, SIGMA), Cubic(), 4, num_unrolls=1, num_draws=100_000)
    assert_mean(draws, es)
    draws = draw_sums(PES(1, 2, SIGMA), Cubic(), 4, num_unrolls=2, num_draws=100_000)
    assert_mean(draws, pes)
    standard_error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - es) / standard_error).max() > 2 * MAX_SIGMAS


@pytest.mark.parametrize("num_pairs", [1, 3])
@pytest.mark.parametrize(("truncation_length", "num_unrolls"), [(1, 6), (2, 3), (6, 1)])
def test_the_variance_of_pes_is_the_closed_form(
    num_pairs, truncation_length, num_unrolls
):
    """For one pair, D sum_mt |h_mt|^2 + sum_mt h_mt . h_tm; P pairs divide it by P.

    h_mt sums, over unrolls from max(m, t) on, the gradient of their losses by unroll
    t's perturbation. The mean of |draw - gradient|^2 within 5 standard errors of it.
    """
    problem, horizon = PROBLEMS["linear"], truncation_length * num_unrolls
    by_unroll = np.zeros((num_unrolls, num_unrolls, THETA.size))
    for t in range(horizon):
        for tau in range(t + 1):
            unrolls = t // truncation_length, tau // truncation_length
            by_unroll[unrolls] += problem.step_gradient(t, tau)
    h = np.zeros_like(by_unroll)
    for m in range(num_unrolls):
        for t in range(num_unrolls):
            h[m, t] = by_unroll[max(m, t) :, t].sum(0)
    expected = THETA.size * np.sum(h**2) + np.einsum("mtd,tmd->", h, h)
    expected /= num_pairs

    estimator = PES(num_pairs, truncation_length, SIGMA)
    draws = draw_sums(estimator, problem, horizon, num_unrolls, 40_000)
    gradient = expected_sum(problem, truncation_length, num_unrolls, horizon)
    squares = np.sum((draws - gradient) ** 2, axis=1)
    assert_mean(squares[:, None], np.array([expected]))


def updates(estimator: Estimator, rollout: Any, num_updates: int) -> list[Any]:
    """Theta after each of several steps of gradient descent, and the particles."""
    theta = jnp.zeros(THETA.size if rollout.horizon > 3 else counting.NUM_PARAMETERS)
    key, start = jax.random.split(jax.random.key(4))
    state = estimator.init(rollout, theta, start)
    history = []
    for update_key in jax.random.split(key, num_updates):
        gradient, state, _ = estimator.estimate(rollout, theta, state, update_key)
        theta = theta - 0.02 * gradient
        particles = state.particles if isinstance(estimator, PES) else state
        history.append((gradient, theta, particles))
    return history


@pytest.mark.parametrize("driver", ["device", "host"])
def test_pes_with_one_unroll_an_episode_is_full_es_exactly(driver):
    """Bit by bit, the particles too, several updates in a row."""
    if driver == "device":
        horizon = 7
        rollout = DeviceRollout(PROBLEMS["quadratic"], horizon)
    else:
        horizon = counting.SHORTEST_EPISODE
        rollout = counting.host_rollout(horizon)
    es = updates(ES(3, SIGMA), rollout, 4)
    pes = updates(PES(3, horizon, SIGMA), rollout, 4)
    assert jnp.abs(es[-1][0]).min() > 0
    jax.tree.map(np.testing.assert_array_equal, es, pes)


def test_an_episode_that_ends_with_the_unroll_leaves_nothing_accumulated():
    rollout = DeviceRollout(PROBLEMS["linear"], 6)
    estimator = PES(2, 3, SIGMA)
    theta = float32(THETA)
    state = estimator.init(rollout, theta, jax.random.key(0))
    assert not state.accumulator.any()
    _, state, report = estimator.estimate(rollout, theta, state, jax.random.key(1))
    assert jnp.abs(state.accumulator).min() > 0
    assert report.accumulator_norm > 0
    _, state, report = estimator.estimate(rollout, theta, state, jax.random.key(2))
    assert not state.accumulator.any()
    assert report.accumulator_norm == 0


def test_the_accumulator_sums_the_perturbations_of_the_running_episode():
    """Episodes of 7 steps in unrolls of 3: ends in the third and the fifth unroll."""
    rollout = DeviceRollout(PROBLEMS["linear"], 7)
    estimator = PES(1, 3, SIGMA)
    theta = float32(THETA)
    state = estimator.init(rollout, theta, jax.random.key(0))
    sums = []
    lived = [0.0] * 5
    for update in range(5):
        key = jax.random.key(update + 1)
        _, state, _ = estimator.estimate(rollout, theta, state, key)
        sums.append(np.asarray(state.accumulator))
        still = PES(1, 3, SIGMA).init(rollout, theta, jax.random.key(0))
        _, alone, _ = estimator.estimate(rollout, theta, still, key)
        lived[update] = np.asarray(alone.accumulator)
    e1, e2, e3, e4, e5 = lived
    for found, expected in zip(sums, [e1, e1 + e2, e3, e3 + e4, e5], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


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
    """One member ends as said and the other never; each is weighted by its own books."""
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

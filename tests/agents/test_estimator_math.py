"""The estimators against closed forms.

The parameters stay frozen, and the mean over many independent draws is compared with
theory by z-scores: each coordinate within 5 standard errors. A right estimator fails
that with probability 8e-7 a coordinate (t distribution of 500 draws), 1e-4 for this
file; and the seeds are fixed. Each such test also demands that its standard error be
small beside what it measures, so that a wrong one cannot pass for lack of draws.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pes_rl.agents import (
    ES,
    PES,
    Estimator,
    TruncatedES,
    antithetic_perturbations,
    pes_gradient,
)
from pes_rl.envs import DeviceRollout, Segment

SIGMA = 0.3
START = 0.4
NUM_PAIRS = 50
NUM_DRAWS = 500
MAX_SIGMAS = 5.0
THETA = np.array([0.5, -1.0, 0.8])
NUM_STEPS = 7

_generator = np.random.default_rng(0)
A = np.array([[0.9, 0.3], [-0.4, 0.7]])
B = 0.7 * _generator.normal(size=(2, THETA.size))
W = _generator.normal(size=(NUM_STEPS, 2)) + 0.5


def float32(array: Any) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


@dataclass(frozen=True)
class Recurrent:
    """s_t = A s_{t-1} + B theta, from a random first state, with the step loss

        W_t s_t + curvature / 2 |s_t|^2 + cubic / 3 (W_t s_t)^3

    First states have coordinates -START, 0 or START, each with probability 1/3. The
    coefficients may be traced, so that all systems share a compilation.
    """

    curvature: Any = 0.0
    cubic: Any = 0.0

    def init(self, key: jax.Array) -> Any:
        third = jax.random.key_data(key) % 3
        return jnp.int32(0), START * (third.astype(jnp.float32) - 1)

    def step(self, theta: jax.Array, state: Any) -> Any:
        t, s = state
        s = float32(A) @ s + float32(B) @ theta
        product = float32(W)[t] @ s
        loss = product + self.curvature / 2 * (s @ s) + self.cubic / 3 * product**3
        return (t + 1, s), loss, jnp.array(False)


SYSTEMS = {
    "linear": Recurrent(),
    "quadratic": Recurrent(curvature=0.5),
    "cubic": Recurrent(cubic=0.1),
}


def influence(age: int) -> np.ndarray:
    """Of a step's theta on the state that many steps later. # shape=(2, D)"""
    return np.linalg.matrix_power(A, age) @ B


def step_gradients(
    system: Recurrent,
    t: int,
    unroll_of_step: list[int | None],
    sigmas: tuple[float, ...] = (SIGMA,) * 9,
) -> np.ndarray:
    """Gradients of step t's expected loss by each theta until then.

    Randomness of the state leaves the expected gradient of a linear or quadratic loss
    as it is; that of a cubic one needs the variance of W_t s_t, to which steps under
    the same perturbation contribute together.

    Args:
        system: The system.
        t: The step in its episode, from 0.
        unroll_of_step: Unroll in which each step of the episode was taken until t, and
            with it the perturbation; None for a step under the mean theta.
        sigmas: Standard deviation of each unroll's perturbation.

    Returns:
        # shape=(t + 1, D)
    """
    influences = [influence(t - tau) for tau in range(t + 1)]
    mean = sum(influences) @ THETA
    # Influences of independent numbers of mean 0 and variance 1.
    random = [START * np.sqrt(2 / 3) * np.linalg.matrix_power(A, t + 1)]
    for unroll in {u for u in unroll_of_step if u is not None}:
        steps = [tau for tau in range(t + 1) if unroll_of_step[tau] == unroll]
        random.append(sigmas[unroll] * sum(influences[tau] for tau in steps))
    square = (W[t] @ mean) ** 2 + sum(np.sum((W[t] @ r) ** 2) for r in random)
    by_state = W[t] + system.curvature * mean + system.cubic * W[t] * square
    return np.stack([by_state @ i for i in influences])


def expected(
    system: Recurrent,
    truncation_length: int,
    num_unrolls: int,
    horizon: int,
    first_limit: int | None = None,
    truncated: bool = False,
    at_once: bool = False,
    sigmas: tuple[float, ...] = (SIGMA,) * 9,
) -> np.ndarray:
    """Expected estimate of each unroll. # shape=(num_unrolls, D)

    A step's loss depends on the thetas since its episode began. PES sees them all, the
    truncated estimate those in the same unroll. An unroll goes on after the end of an
    episode if the next begins `at_once`.
    """
    estimates = np.zeros((num_unrolls, THETA.size))
    unroll_of_step: list[int | None] = []
    limit = first_limit or horizon
    for unroll in range(num_unrolls):
        first_seen = 0
        if truncated:  # The state was reached by the mean theta.
            first_seen = len(unroll_of_step)
            unroll_of_step = [None] * first_seen
        for _ in range(truncation_length):
            t = len(unroll_of_step)
            unroll_of_step.append(unroll)
            gradients = step_gradients(system, t, unroll_of_step, sigmas)
            estimates[unroll] += gradients[first_seen:].sum(0)
            if t + 1 == limit:
                unroll_of_step, limit, first_seen = [], horizon, 0
                if not at_once:
                    break
    return estimates


@cache
def compiled_draws(estimator: Any, horizon: int) -> Any:
    """(keys [M, U + 1], sigmas [U], curvature, cubic) -> estimates [M, U, D].

    Compiled without the costliest optimisations, which take longer than they save.
    """
    theta = float32(THETA)

    def draw(keys: jax.Array, sigmas: jax.Array, system: Recurrent) -> jax.Array:
        rollout = DeviceRollout(system, horizon)

        def update(state: Any, now: Any) -> Any:
            key, sigma = now
            scheduled = replace(estimator, sigma=sigma)
            gradient, state, _ = scheduled.estimate(rollout, theta, state, key)
            return state, gradient

        state = estimator.init(rollout, theta, keys[0])
        return lax.scan(update, state, (keys[1:], sigmas))[1]

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def draws(keys: jax.Array, sigmas: jax.Array, *coefficients: Any) -> jax.Array:
        return lax.map(lambda k: draw(k, sigmas, Recurrent(*coefficients)), keys)

    return draws


def draw_estimates(
    estimator: Estimator,
    system: Recurrent,
    horizon: int,
    num_unrolls: int,
    num_blocks: int = 1,
    sigmas: tuple[float, ...] = (SIGMA,) * 9,
) -> np.ndarray:
    """Independent draws of the estimates of an unroll after the other.

    Returns:
        # shape=(NUM_DRAWS * num_blocks, num_unrolls, D), dtype=float64
    """
    draws = compiled_draws(estimator, horizon)
    shape = (num_blocks, NUM_DRAWS, num_unrolls + 1)
    keys = jax.random.split(jax.random.key(17), shape)
    numbers = sigmas[:num_unrolls], system.curvature, system.cubic
    blocks = [np.asarray(draws(block, *map(float32, numbers))) for block in keys]
    return np.concatenate(blocks).astype(np.float64)


def standard_error(draws: np.ndarray) -> np.ndarray:
    return draws.std(0, ddof=1) / np.sqrt(len(draws))


def assert_mean(draws: np.ndarray, mean: np.ndarray, precision: float = 0.03) -> None:
    """Within MAX_SIGMAS standard errors, these being a small part of the mean."""
    error = standard_error(draws)
    assert np.linalg.norm(error) < precision * np.linalg.norm(mean)
    z = (draws.mean(0) - mean) / error
    assert np.abs(z).max() < MAX_SIGMAS, f"z-scores {z}"


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


@pytest.mark.parametrize(("truncation_length", "num_unrolls"), [(1, 6), (2, 3)])
def test_the_variance_of_pes_is_the_closed_form(truncation_length, num_unrolls):
    """For one pair, D sum_mt |h_mt|^2 + sum_mt h_mt . h_tm; P pairs divide it by P.

    h_mt sums, over unrolls from max(m, t) on, the gradient of their losses by unroll
    t's perturbation. The mean of |draw - gradient|^2 is within 5 standard errors.
    """
    system, horizon = SYSTEMS["linear"], truncation_length * num_unrolls
    by_unroll = np.zeros((num_unrolls, num_unrolls, THETA.size))
    for t in range(horizon):
        for tau, gradient in enumerate(step_gradients(system, t, [0] * (t + 1))):
            by_unroll[t // truncation_length, tau // truncation_length] += gradient
    h = np.zeros_like(by_unroll)
    for m in range(num_unrolls):
        for t in range(num_unrolls):
            h[m, t] = by_unroll[max(m, t) :, t].sum(0)
    variance = THETA.size * np.sum(h**2) + np.einsum("mtd,tmd->", h, h)

    estimator = PES(NUM_PAIRS, truncation_length, SIGMA)
    draws = draw_estimates(estimator, system, horizon, num_unrolls, num_blocks=4)
    gradient = expected(system, truncation_length, num_unrolls, horizon).sum(0)
    squares = np.sum((draws.sum(1) - gradient) ** 2, axis=1)
    assert_mean(squares[:, None], np.array([variance / NUM_PAIRS]))


@dataclass(frozen=True)
class Alive:
    """Loss -1 a step; an episode ends with its first step unless theta is positive."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        return state + 1, jnp.float32(-1), theta[0] <= 0


@pytest.mark.parametrize(
    ("estimator", "factor"),
    [
        pytest.param(PES(NUM_PAIRS, 1, SIGMA), 1, id="one step an unroll"),
        pytest.param(PES(NUM_PAIRS, 2, SIGMA), 1, id="waiting"),
        pytest.param(PES(NUM_PAIRS, 2, SIGMA, restart_at_once=True), 0, id="at once"),
    ],
)
def test_pes_is_unbiased_where_ends_depend_on_theta_only_if_it_waits(estimator, factor):
    """Two steps at most: the mean loss is -1 - Phi(theta / sigma), Phi the normal cdf.

    Restarting at once, every particle has two steps in an unroll, and nothing shows.
    """
    theta, rollout = jnp.array([0.1]), DeviceRollout(Alive(), horizon=2)

    def draw(keys: jax.Array) -> jax.Array:
        state, total = estimator.init(rollout, theta, keys[0]), jnp.zeros(1)
        for key in keys[1 : 1 + 2 // estimator.truncation_length]:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            total = total + gradient
        return total

    keys = jax.random.split(jax.random.key(1), (NUM_DRAWS, 3))
    draws = np.asarray(jax.jit(lambda keys: lax.map(draw, keys))(keys), np.float64)
    density = np.exp(-((0.1 / SIGMA) ** 2) / 2) / np.sqrt(2 * np.pi)
    if factor == 0:
        np.testing.assert_allclose(draws, 0, atol=1e-5)
    else:
        assert_mean(draws, np.array([-density / SIGMA]))


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
    for key, lived_under in zip(
        keys, [e[0], e[1], 0 * e[2], e[3], e[4], 0 * e[5]], strict=True
    ):
        _, state, report = estimator.estimate(rollout, theta, state, key)
        np.testing.assert_array_equal(state.accumulator, lived_under)
        norms = np.linalg.norm(lived_under, axis=1)
        np.testing.assert_allclose(report.accumulator_norm, norms.mean(), rtol=1e-6)


def test_the_accumulator_adds_up_over_the_unrolls_of_an_episode():
    rollout, theta = counting.host_rollout(horizon=3), jnp.zeros(2)
    keys = [jax.random.key(update) for update in range(5)]
    e = [np.asarray(antithetic_perturbations(key, 2, 2, SIGMA)) for key in keys]
    estimator = PES(2, 1, SIGMA)
    state = estimator.init(rollout, theta, jax.random.key(9))
    for key, lived_under in zip(
        keys, [e[0], e[0] + e[1], 0 * e[2], e[3], e[3] + e[4]], strict=True
    ):
        _, state, _ = estimator.estimate(rollout, theta, state, key)
        np.testing.assert_array_equal(state.accumulator, lived_under)


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
    """One member ends as said, the other never; each is weighted by its own books."""
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


def test_a_particle_that_waits_has_lived_under_nothing():
    """One member's episode ends with the second of four steps, and no other begins."""
    ended, simulated = np.zeros((4, 2), bool), np.ones((4, 2), bool)
    ended[1, 0] = True
    simulated[2:, 0] = False
    loss = float32(np.where(simulated, 1.0, 0.0))
    parts, accumulator = pes_gradient(
        Segment(loss, *map(jnp.asarray, (ended, 0 * ended > 0, simulated))),
        float32([XI, -XI]),
        float32([E, -E]),
        0.5,
    )
    expected_parts = np.stack([2 * (XI + E), -4 * (XI + E)]) / (2 * 0.5**2)
    np.testing.assert_allclose(parts, expected_parts, rtol=1e-6)
    np.testing.assert_array_equal(accumulator, np.stack([0 * E, -(XI + E)]))

"""The steps of the derivation in `docs/estimators.md`, each as an identity.

Three unrolls of two steps on the recurrent system: L_u is the loss of unroll u, theta_v
the copy of theta that unroll v runs under.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import SIGMA, SYSTEMS, THETA, Recurrent, float32
from sampling import assert_mean

from pes_rl.agents import (
    NRES,
    PES,
    antithetic_perturbations,
    es_gradient,
    pes_gradient,
)
from pes_rl.envs import DeviceRollout, Segment

UNROLLS, K = 3, 2


def unroll_losses(system: Recurrent, copies: jax.Array) -> jax.Array:
    """L_u of each unroll, from a fixed state. # shape=(UNROLLS,)

    Args:
        system: The system.
        copies: theta_v. # shape=(UNROLLS, D)
    """
    state, losses = (jnp.int32(0), float32([0.4, -0.4])), []
    for theta in copies:
        total = jnp.float32(0)
        for _ in range(K):
            state, loss, _ = system.step(theta, state)
            total = total + loss
        losses.append(total)
    return jnp.stack(losses)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_derivatives_by_the_copies_add_up_to_the_total_derivative(name):
    """And no loss depends on the copy of a later unroll."""
    system, theta = SYSTEMS[name], float32(THETA)

    def one_theta(theta: jax.Array) -> jax.Array:
        return unroll_losses(system, jnp.tile(theta, (UNROLLS, 1))).sum()

    copies = jnp.tile(theta, (UNROLLS, 1))
    by_copy = jax.jit(jax.jacrev(lambda c: unroll_losses(system, c)))(copies)
    total = jax.jit(jax.grad(one_theta))(theta)
    np.testing.assert_allclose(by_copy.sum((0, 1)), total, rtol=1e-5)
    for u, v in product(range(UNROLLS), repeat=2):
        assert by_copy[u, v].any() == (v <= u)


def test_an_estimate_is_the_sum_of_those_of_the_derivatives_by_each_copy():
    """On a fixed draw: that of unroll u is sum_{v <= u} of ES with e_v and L_u."""
    rollout, theta = DeviceRollout(SYSTEMS["cubic"], UNROLLS * K), float32(THETA)
    estimator, perturbations = PES(3, K, SIGMA), []
    estimate = jax.jit(partial(estimator.estimate, rollout))
    state = estimator.init(rollout, theta, jax.random.key(0))
    for key in jax.random.split(jax.random.key(1), UNROLLS):
        gradient, state, report = estimate(theta, state, key)
        perturbations.append(antithetic_perturbations(key, 3, theta.size, SIGMA))
        terms = [es_gradient(report.particle_loss, e, SIGMA) for e in perturbations]
        np.testing.assert_allclose(gradient, sum(t.sum(0) for t in terms), rtol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_expectation_of_pes_is_the_sum_of_the_smoothed_derivatives(name):
    """Exactly, by Gauss-Hermite quadrature over all perturbations, three nodes each.

    That integrates polynomials to degree five, and a cubic loss times e is of degree
    four. Each term E[e_v L_u] / sigma^2 is the smoothed derivative of L_u by theta_v,
    and none where v comes after u; their sum is what `pes_gradient` gives.
    """
    nodes = SIGMA * np.sqrt(3) * np.array([-1, 0, 1])
    size = UNROLLS * THETA.size
    grid = np.array(list(product(nodes, repeat=size)))
    weights = np.array(list(product([1 / 6, 2 / 3, 1 / 6], repeat=size))).prod(1)
    e = float32(grid.reshape(-1, UNROLLS, THETA.size))

    def losses(copies: jax.Array) -> jax.Array:
        return unroll_losses(SYSTEMS[name], copies)

    @jax.jit
    def values(e: jax.Array) -> tuple[jax.Array, jax.Array]:
        copies = float32(THETA)[None, None] + e
        return jax.vmap(losses)(copies), jax.vmap(jax.jacrev(losses))(copies)

    loss, by_copy = (np.asarray(x, np.float64) for x in values(e))
    smoothed = np.einsum("n,nuvd->uvd", weights, by_copy)
    score = np.einsum("n,nvd,nu->uvd", weights, e, loss) / SIGMA**2
    np.testing.assert_allclose(score, smoothed, atol=2e-5)

    accumulator = jnp.zeros_like(e[:, 0])
    blank = jnp.zeros((1, len(e)), bool)
    for u in range(UNROLLS):
        weighted = float32(loss[None, :, u] * weights * len(e))
        segment = Segment(weighted, blank, blank, ~blank)
        parts, accumulator = pes_gradient(segment, accumulator, e[:, u], SIGMA)
        estimate = np.asarray(parts, np.float64).sum(0)
        np.testing.assert_allclose(estimate, smoothed[u].sum(0), atol=2e-4)


@dataclass(frozen=True)
class Slopes:
    """Loss slope_t . theta at step t, whatever the state."""

    slope: Any

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        return state + 1, self.slope[state] @ theta, jnp.array(False)


def squared_errors(estimator: Any, slope: jax.Array, num_draws: int) -> np.ndarray:
    """|estimate - gradient|^2 / |gradient|^2 of draws of an episode of U unrolls.

    Args:
        estimator: Has unrolls of one step.
        slope: Gradient of each unroll's loss. # shape=(U, D)
        num_draws: Independent draws.
    """
    num_unrolls, size = slope.shape
    rollout, theta = DeviceRollout(Slopes(slope), num_unrolls), jnp.ones(size)

    def draw(keys: jax.Array) -> jax.Array:
        def update(state: Any, key: jax.Array) -> Any:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            return state, gradient

        state = estimator.init(rollout, theta, keys[0])
        return jax.lax.scan(update, state, keys[1:])[1].sum(0)

    keys = jax.random.split(jax.random.key(5), (num_draws, num_unrolls + 1))
    draws = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
    gradient = np.asarray(slope.sum(0), np.float64)
    return np.sum((draws - gradient) ** 2, axis=1) / np.sum(gradient**2)


@pytest.mark.parametrize("trace_decay", [1.0, 0.5, 0.0])
def test_a_trace_decay_lowers_the_variance_where_unrolls_forget(trace_decay):
    """sum_u |g_u|^2 (D (1 - lambda^2u) / (1 - lambda^2) + 1), and no bias.

    Ten unrolls with orthogonal gradients of one length, D = 20: 111 times the squared
    gradient at lambda = 1, which is PES, and 5.3 times less at lambda = 0.
    """
    size, num_unrolls = 20, 10
    ages = np.arange(num_unrolls)
    sums = np.cumsum(trace_decay ** (2.0 * ages))
    variance = np.mean(size * sums + 1)
    assert variance <= {1.0: 111, 0.5: 28, 0.0: 21}[trace_decay]
    estimator = PES(1, 1, SIGMA, trace_decay=trace_decay)
    squares = squared_errors(estimator, jnp.eye(size)[:num_unrolls], 4000)
    assert_mean(squares[:, None], np.array([variance]))


@pytest.mark.parametrize("kind", [PES, NRES])
@pytest.mark.parametrize(("num_unrolls", "same"), [(1, True), (4, True), (4, False)])
def test_the_variance_falls_grows_or_stays_with_the_number_of_unrolls(
    kind, num_unrolls, same
):
    """Of one pair, over the squared gradient, with U unrolls of independent losses.

    PES: D (U + 1) / (2 U) + 1 / U if their gradients are the same, D (U + 1) / 2 + 1 if
    they are orthogonal and as long. Noise reuse: D + 1. Within 5 standard errors.
    """
    size = 4
    slope = jnp.eye(size)[jnp.zeros(size, int) if same else jnp.arange(size)]
    squares = squared_errors(kind(1, 1, SIGMA), slope[:num_unrolls], 20_000)
    variance = size + 1.0
    if kind is PES:
        variance = size * (num_unrolls + 1) / 2 + 1
        variance /= num_unrolls if same else 1
    assert_mean(squares[:, None], np.array([variance]))

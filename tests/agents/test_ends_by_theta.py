"""Estimators where theta decides when an episode ends, against closed forms.

See `test_estimator_math.py` for the z-scores.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from recurrent import (
    SIGMA,
)
from sampling import NUM_DRAWS, assert_mean
from scipy.special import ndtr

from pes_rl.agents import (
    GPES,
    NRES,
    PES,
)
from pes_rl.envs import DeviceRollout

NUM_PAIRS = 50


@dataclass(frozen=True)
class Alive:
    """Loss -1 a step; an episode ends with its first step unless theta is positive."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        return state + 1, jnp.float32(-1), theta[0] <= 0


def test_restarting_at_once_is_biased_where_ends_depend_on_theta():
    """Two unrolls of two steps, horizon 4: half of the gradient at most.

    Each episode's loss is -(1 + Phi)^2, Phi = Phi(theta / sigma), so its gradient is
    -2 (1 + Phi) density / sigma. All unrolls have the loss -2. The first contributes 0;
    the second only by the accumulators: -(1 + Phi) density / sigma.
    """
    theta, rollout = jnp.array([0.1]), DeviceRollout(Alive(), horizon=4)
    estimator = PES(NUM_PAIRS, 2, SIGMA, restart_at_once=True)

    def draw(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = estimator.init(rollout, theta, keys[0])
        first, state, _ = estimator.estimate(rollout, theta, state, keys[1])
        return first, estimator.estimate(rollout, theta, state, keys[2])[0]

    keys = jax.random.split(jax.random.key(1), (NUM_DRAWS, 3))
    first, second = jax.jit(lambda keys: lax.map(draw, keys))(keys)
    np.testing.assert_allclose(first, 0, atol=1e-5)
    density = np.exp(-((0.1 / SIGMA) ** 2) / 2) / np.sqrt(2 * np.pi)
    mean = -(1 + ndtr(0.1 / SIGMA)) * density / SIGMA
    assert_mean(np.asarray(second, np.float64), np.array([mean]))


@pytest.mark.parametrize(
    ("estimator", "factor"),
    [
        pytest.param(PES(NUM_PAIRS, 1, SIGMA), 1, id="one step an unroll"),
        pytest.param(PES(NUM_PAIRS, 2, SIGMA), 1, id="waiting"),
        pytest.param(PES(NUM_PAIRS, 2, SIGMA, restart_at_once=True), 0, id="at once"),
        pytest.param(NRES(NUM_PAIRS, 1, SIGMA), 1, id="noise reuse"),
        pytest.param(GPES(NUM_PAIRS, 1, 1, SIGMA), 1, id="a period a step"),
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

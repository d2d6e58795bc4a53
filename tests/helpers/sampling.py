"""Independent draws of an estimator's estimates, and z-scores of their mean."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
from jax import lax
from recurrent import SIGMA, THETA, Recurrent, float32

from pes_rl.agents import Estimator, PerturbingEstimator
from pes_rl.envs import DeviceRollout

NUM_DRAWS = 500
MAX_SIGMAS = 5.0
DEFAULT_SIGMAS = (SIGMA,) * 9


class ObservedRollout(DeviceRollout):
    """A rollout of `Recurrent` whose observations are the system's states."""

    def observations(self, particles):
        _, state = particles.state
        return state


@cache
def compiled_draws(estimator: Any, horizon: int) -> Any:
    """The function (keys [M, U + 1], sigmas [U], coefficients) -> draws [M, U, D]."""
    theta = float32(THETA)

    def draw(keys: jax.Array, sigmas: jax.Array, system: Recurrent) -> jax.Array:
        rollout = ObservedRollout(system, horizon)

        def update(state: Any, now: Any) -> Any:
            key, sigma = now
            scheduled: Any = estimator
            if isinstance(estimator, PerturbingEstimator):
                scheduled = replace(scheduled, sigma=sigma)
            gradient, state, _ = scheduled.estimate(rollout, theta, state, key)
            return state, gradient

        state = estimator.init(rollout, theta, keys[0])
        return lax.scan(update, state, (keys[1:], sigmas))[1]

    @jax.jit
    def draws(keys: jax.Array, sigmas: jax.Array, *coefficients: Any) -> jax.Array:
        keys = jax.random.wrap_key_data(keys)
        return lax.map(lambda k: draw(k, sigmas, Recurrent(*coefficients)), keys)

    return draws


@cache
def all_keys() -> np.ndarray:
    """Key data of up to four blocks of draws and nine unrolls."""
    shape = (4, NUM_DRAWS, len(DEFAULT_SIGMAS) + 1)
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(17), shape)))


def draw_estimates(
    estimator: Estimator,
    system: Recurrent,
    horizon: int,
    num_unrolls: int,
    num_blocks: int = 1,
    sigmas: tuple[float, ...] = DEFAULT_SIGMAS,
) -> np.ndarray:
    """Independent draws of the estimates of consecutive unrolls.

    Returns:
        # shape=(NUM_DRAWS * num_blocks, num_unrolls, D), dtype=float64
    """
    draws = compiled_draws(estimator, horizon)
    keys = all_keys()[:num_blocks, :, : num_unrolls + 1]
    numbers = sigmas[:num_unrolls], system.curvature, system.cubic
    blocks = [np.asarray(draws(block, *map(float32, numbers))) for block in keys]
    return np.concatenate(blocks).astype(np.float64)


def standard_error(draws: np.ndarray) -> np.ndarray:
    return draws.std(0, ddof=1) / np.sqrt(len(draws))


def assert_mean(draws: np.ndarray, mean: np.ndarray, precision: float = 0.03) -> None:
    """Assert that the draws' mean is `mean`, within MAX_SIGMAS standard errors.

    The standard errors must be below `precision` times the mean.
    """
    error = standard_error(draws)
    assert np.linalg.norm(error) < precision * np.linalg.norm(mean)
    z = (draws.mean(0) - mean) / error
    assert np.abs(z).max() < MAX_SIGMAS, f"z-scores {z}"

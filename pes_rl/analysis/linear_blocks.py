"""A linear problem whose estimates have a variance in closed form: `linear:REGIME`.

    L_t = c_t . theta,    t = 1, ..., T

The loss of a step depends on the theta of that step alone, so the gradient through one
copy of theta a step is diagonal in blocks. Symbols: c_t [D] the gradient of step t, b_m
the sum of c_t over the m-th stretch of M steps under one perturbation, e_m = sigma n_m
that perturbation, P pairs.

A pair's estimates sum over the episode to

    PES, GPES:     sum_m (n_m . b_m) (n_1 + ... + n_m)
    truncated ES:  sum_m (n_m . b_m) n_m

whose terms, products of normals, are uncorrelated: with the D + 1 of n_m (n_m . b_m)
and the D of n_j (n_m . b_m), j < m, the traces of the covariances are

    PES, GPES:     sum_m (m D + 1) |b_m|^2 / P
    truncated ES:  sum_m (D + 1) |b_m|^2 / P

PES has M = K. Noise reuse and full ES have M = T, a single term. Of equal c_t the first
falls to half of D |g|^2 / P as unrolls multiply; of unrelated ones it grows as T / K.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs import UnrolledProblem

REGIMES = ("identical", "independent")


@dataclass(frozen=True)
class LinearBlocks(UnrolledProblem):
    """T steps whose losses are linear in D parameters.

    Attributes:
        horizon: Steps T of an episode.
        size: Parameters D.
        regime: All c_t the same unit normal draw, or one draw for each.
    """

    horizon: int = 100
    size: int = 100
    regime: Literal["identical", "independent"] = "identical"

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(f"theta[{i}]" for i in range(self.size))

    def init_theta(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.zeros(self.size)

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(
        self, theta: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        loss = jnp.asarray(self.step_gradients)[state] @ theta
        return state + 1, loss, jnp.array(False)

    @property
    def diverged_loss(self) -> float:
        """Unused: nothing diverges in this problem."""
        return 0.0

    @property
    def step_gradients(self) -> np.ndarray:
        """Gradient c_t of every step, [T, D]."""
        generator = np.random.default_rng(0)
        draws = 1 if self.regime == "identical" else self.horizon
        normal = generator.standard_normal((draws, self.size), np.float32)
        return np.broadcast_to(normal, (self.horizon, self.size))

    @property
    def gradient(self) -> np.ndarray:
        """Gradient of a whole episode, [D]."""
        return self.step_gradients.sum(0, dtype=np.float64)


def predicted_variance(problem: LinearBlocks, agent: str, estimator: Any) -> float:
    """Trace of the covariance of the sum of an agent's estimates over one episode.

    NaN where this file derives none.
    """
    horizon = problem.horizon
    lengths = {
        "pes": "truncation_length",
        "gpes": "noise_period",
        "truncated-es": "truncation_length",
    }
    if agent in lengths:
        length = getattr(estimator, lengths[agent])
    elif agent in ("nres", "es"):
        length = horizon
    else:
        # What differentiates is exact here, forward accumulation with noise is not.
        exact = ("bptt", "tbptt", "rtrl", "pes-analytic")
        return 0.0 if agent in exact else float("nan")
    starts = np.arange(0, horizon, length)
    sums = np.add.reduceat(problem.step_gradients.astype(np.float64), starts)
    weights = np.arange(1, len(starts) + 1) * problem.size + 1
    if agent == "truncated-es":
        weights = np.full(len(starts), problem.size + 1)
    return float((weights * (sums**2).sum(1)).sum() / estimator.num_pairs)

"""A sigma for each parameter, which adapts by its own gradient, as in PGPE.

    z_i = e_i / sigma, the unit noise of particle i
    zeta_i = sum of z_i^2 - 1 over the perturbations that its loss depends on
    rank_i = centred rank of its loss among all particles', from -1/2 to 1/2
    sigma <- sigma clip(1 - rate / N sum_i rank_i zeta_i, 0.8, 1.2)

(Sehnke, Osendorfer, Rueckstiess, Graves, Peters, Schmidhuber 2010, Neural Networks
23(4), symmetric sampling; ranks, and the limit of 20 % an update, as in pgpelib of
Toklu, Liskowski and Srivastava 2020, arXiv 2008.02387.) All products are by parameter.
docs/adaptive_sigma.md says what is estimated.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.chunks import chunk_size
from pes_rl.agents.core.fitness_shaping import centered_ranks
from pes_rl.agents.core.perturbations import antithetic_perturbations
from pes_rl.agents.core.report import Report
from pes_rl.agents.es import ES
from pes_rl.agents.nres import NRES, episode_noise
from pes_rl.agents.pes import PES
from pes_rl.agents.truncated_es import TruncatedES
from pes_rl.envs.rollout.base import Rollout

ADAPTABLE = (PES, NRES, ES, TruncatedES)
"""Estimators whose sigma can adapt."""

MAX_CHANGE = 0.2
"""Largest change of a sigma in an update, as a share of it."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdaptiveSigmaState:
    """State between two updates.

    Attributes:
        estimator: State of the estimator whose sigma adapts.
        sigma: Standard deviation of each parameter. # shape=(D,), dtype=float32
        score: zeta of the running episodes, for `PES`; None for the others, whose
            losses depend on one perturbation. # shape=(N, D), dtype=float32
    """

    estimator: Any
    sigma: jax.Array
    score: jax.Array | None

    def mean_sigma(self) -> jax.Array:
        """Root of the mean square of the standard deviations."""
        return jnp.sqrt(jnp.mean(self.sigma**2))

    def adopt(self, before: "AdaptiveSigmaState") -> "AdaptiveSigmaState":
        """This new state, with the sigmas of `before`, and its critic if it has one."""
        estimator = self.estimator
        if hasattr(estimator, "adopt"):
            estimator = estimator.adopt(before.estimator)
        return replace(self, estimator=estimator, sigma=before.sigma)


@dataclass(frozen=True)
class AdaptiveSigma:
    """An estimator with a sigma for each parameter, adapted in every update.

    The estimate of the gradient is that of the estimator, whose accumulators follow the
    change of sigma, multiplied by (sigma_d / s)^2 for parameter d, with s^2 the mean of
    all sigma_d^2: the direction of PGPE, in which a parameter that is explored less
    moves less. With equal sigmas nothing changes. It stays unbiased for that multiple.

    Attributes:
        estimator: One of `ADAPTABLE`; its sigma is what all parameters begin with.
        sigma_learning_rate: Rate; pgpelib has 0.1.
    """

    estimator: Any
    sigma_learning_rate: float

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, ADAPTABLE):
            names = ", ".join(kind.__name__ for kind in ADAPTABLE)
            raise ValueError(
                f"sigma adapts for {names}, and this is "
                f"{type(self.estimator).__name__}; drop sigma_learning_rate"
            )
        if not self.sigma_learning_rate > 0:
            raise ValueError(
                f"sigma_learning_rate={self.sigma_learning_rate} must be above 0; use "
                "0.1, for example"
            )
        if getattr(self.estimator, "restart_at_once", False):
            raise ValueError(
                "sigma_learning_rate needs one loss of each particle, and with "
                "restart_at_once an unroll has those of two episodes; drop one of them"
            )

    @property
    def num_pairs(self) -> int:
        return self.estimator.num_pairs

    def max_steps(self, horizon: int | None) -> int:
        return self.estimator.max_steps(horizon)

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array
    ) -> AdaptiveSigmaState:
        size = chunk_size(self.estimator, rollout, theta)
        if size < self.num_pairs:
            raise ValueError(
                f"sigma_learning_rate needs the losses of all {self.num_pairs} pairs "
                f"at once, here in chunks of {size}; drop it, or use "
                f"pairs_per_chunk={self.num_pairs}"
            )
        sigma = jnp.full(theta.shape, self.estimator.sigma, jnp.float32)
        state = replace(self.estimator, sigma=sigma[None]).init(rollout, theta, key)
        score = None
        if isinstance(self.estimator, PES):
            score = jnp.zeros((2 * self.num_pairs, theta.size))
        return AdaptiveSigmaState(state, sigma, score)

    def estimate(
        self,
        rollout: Rollout,
        theta: jax.Array,
        state: AdaptiveSigmaState,
        key: jax.Array,
    ) -> tuple[jax.Array, AdaptiveSigmaState, Report]:
        now = replace(self.estimator, sigma=state.sigma[None])
        gradient, after, report = now.estimate(rollout, theta, state.estimator, key)
        noise = self._unit_noise(rollout, theta, state.estimator, key)
        score = noise**2 - 1
        running = None
        if state.score is not None:
            score = self.estimator.trace_decay * state.score + score
            # An episode that has no steps yet has no perturbations.
            begun = jnp.asarray(after.particles.clock.elapsed) > 0
            running = jnp.where(begun[:, None], score, 0.0)
        slope = log_sigma_slope(report.particle_loss, report.arrived, score)
        sigma = adapted_sigma(state.sigma, slope, self.sigma_learning_rate)
        gradient = gradient * (state.sigma / state.mean_sigma()) ** 2
        report = replace(report, gradient_norm=jnp.linalg.norm(gradient))
        return gradient, AdaptiveSigmaState(after, sigma, running), report

    def _unit_noise(
        self, rollout: Rollout, theta: jax.Array, state: Any, key: jax.Array
    ) -> jax.Array:
        """The noise of this update, which keys decide, drawn again. # shape=(N, D)."""
        options: Any = {
            "orthogonal": getattr(self.estimator, "orthogonal", False),
            "blocks": not rollout.on_device,
        }
        if isinstance(self.estimator, NRES):
            return episode_noise(
                state.key,
                state.particles.clock.episode,
                theta.size,
                num_pairs=self.num_pairs,
                **options,
            )
        return antithetic_perturbations(key, self.num_pairs, theta.size, 1.0, **options)


@jax.jit
def log_sigma_slope(loss: jax.Array, arrived: Any, score: jax.Array) -> jax.Array:
    """Estimated derivative of the mean rank by the logarithm of each sigma.

        1 / N sum_i rank_i zeta_i

    Args:
        loss: L of each particle. # shape=(N,)
        arrived: Particles that count; the others were lost. # shape=(N,), dtype=bool
        score: zeta of each particle. # shape=(N, D)

    Returns:
        # shape=(D,)
    """
    rank, _ = centered_ranks(loss, arrived)
    count = jnp.maximum(jnp.asarray(arrived).sum(), 1).astype(loss.dtype)
    return (rank[:, None] * score).sum(0) / count


@jax.jit
def adapted_sigma(sigma: jax.Array, slope: jax.Array, rate: float) -> jax.Array:
    """Sigma after a step down the slope, of at most `MAX_CHANGE` of it. # shape=(D,).

    >>> sigma, slope = jnp.array([1.0, 1.0, 2.0]), jnp.array([-0.5, 9.0, 0.0])
    >>> [round(float(s), 3) for s in adapted_sigma(sigma, slope, 0.1)]
    [1.05, 0.8, 2.0]
    """
    factor = jnp.clip(1 - rate * slope, 1 - MAX_CHANGE, 1 + MAX_CHANGE)
    return sigma * factor

"""Truncated evolution strategies (Vicol, Metz, Sohl-Dickstein, ICML 2021, Algorithm 1).

    s = first state
    repeat:
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        _, L_i = unroll(s, theta + e_i, K steps)          for each particle i
        s, _ = unroll(s, theta, K steps)
        gradient = 1 / (N sigma^2) sum_i e_i L_i

The estimate is biased: it contains the effect of theta on the losses of the next K
steps, and not its effect on the steps after them.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.chunks import chunk_size, in_chunks
from pes_rl.agents.core.estimator import (
    PartialUnrollEstimator,
    check_truncation_length,
)
from pes_rl.agents.core.fitness_shaping import (
    FitnessShaping,
    check_fitness_shaping,
    shaped_loss,
)
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.agents.core.report import Report, describe
from pes_rl.agents.es import es_gradient
from pes_rl.envs.rollout.base import Particles, Rollout


@dataclass(frozen=True)
class TruncatedES(PartialUnrollEstimator):
    """Truncated ES: partial unrolls from the state that the mean parameters reached.

    The mean unroll costs K steps an update besides the particles' N K, and is counted.
    It comes before the update, on the same episode randomness as the particles. Where
    an episode ends inside an unroll, the losses end with it, and the next unroll begins
    a new episode. The episodes that the report counts are those of the mean parameters,
    because the particles run copies of a part of them. Two other estimators with this
    name advance states by a perturbed theta: one for each particle, which is `PES` with
    `trace_decay=0`, or one for each pair, which is not implemented here.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        sigma: Standard deviation of the perturbations.
        pairs_per_chunk: Pairs whose perturbations are in memory at once; None takes
            all, or as many as fit.
        fitness_shaping: `none`; or `centered-ranks` or `top-pairs` of the losses of
            each unroll, which change what is estimated (docs/fitness_shaping.md) and
            need all pairs at once.
        num_top_pairs: Pairs b that are used with `top-pairs`.

    Example (an update is made as in the example of `PES`):
        >>> truncated = TruncatedES(num_pairs=4, truncation_length=20, sigma=0.1)
        >>> truncated.max_steps(horizon=100)  # environment steps of an update
        180
    """

    pairs_per_chunk: int | None = None
    fitness_shaping: FitnessShaping = "none"
    num_top_pairs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fitness_shaping(self)

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return (2 * self.num_pairs + 1) * self.truncation_length

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        """The shared state: a single particle, run by the mean parameters."""
        check_truncation_length(self.truncation_length, rollout.horizon)
        if not rollout.can_copy:
            raise ValueError(
                "truncated-es starts every particle from a copy of one state, and this "
                "environment's state cannot be copied; use pes or es"
            )
        chunk_size(self, rollout, theta)  # Raises if the population cannot be cut.
        return rollout.reset(key, 1, members=1)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        n = chunk_size(self, rollout, theta)

        def estimate_pairs(first: Any, rows: Any) -> tuple[jax.Array, Any, Report]:
            e, thetas = perturb_antithetic(
                rollout, theta, key, self.num_pairs, self.sigma, first=first, count=n
            )
            start = rollout.take(state, jnp.zeros(2 * n, jnp.int32))
            end, segment = rollout.unroll(
                start, thetas, self.truncation_length, single_episode=True
            )
            loss, std = shaped_loss(self, segment)
            contributions = es_gradient(loss, e, self.sigma)
            report = describe(start, end, segment, contributions, loss_std=std)
            return contributions, rows, report

        gradient, _, report = in_chunks(self, rollout, theta, estimate_pairs, ())
        mean, mean_segment = rollout.unroll(
            state, theta[None], self.truncation_length, single_episode=True
        )
        episodes = describe(state, mean, mean_segment, jnp.zeros((1, theta.size)))
        report = replace(
            report,
            env_steps=report.env_steps + episodes.env_steps,
            diverged=report.diverged + episodes.diverged,
            episodes=episodes.episodes,
            episode_loss=episodes.episode_loss,
            episode_steps=episodes.episode_steps,
        )
        return gradient, mean, report

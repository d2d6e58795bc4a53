"""Full-episode evolution strategies with antithetic pairs.

The smoothed objective's gradient by the score function, as in Salimans et al. 2017
(arXiv 1703.03864, Algorithm 1), without their rank shaping and weight decay:

    repeat:
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        L_i = loss of one whole episode with theta + e_i
        gradient = 1 / (N sigma^2) sum_i e_i L_i
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from pes_rl.agents.core.chunks import in_chunks, pairs_at_once
from pes_rl.agents.core.estimator import (
    Report,
    check_population,
    check_whole_episodes,
    describe,
)
from pes_rl.agents.core.perturbations import draw_antithetic, perturb
from pes_rl.envs.rollout.base import Particles, Rollout, Thetas
from pes_rl.envs.rollout.episodes import Segment


@dataclass(frozen=True)
class ES:
    """One whole episode a particle and update.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        sigma: Standard deviation of the perturbations.
        orthogonal: Make the perturbations of an update orthogonal, which leaves the
            estimate's mean and lowers its variance; see `orthogonal_rows`.
        pairs_per_chunk: Pairs whose perturbations are held at once; None takes all, or
            as many as fit. See `chunks`.
    """

    num_pairs: int
    sigma: Any
    orthogonal: bool = False
    pairs_per_chunk: int | None = None

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)

    def max_steps(self, horizon: int | None) -> int:
        assert horizon is not None  # init refuses a rollout without one
        return 2 * self.num_pairs * horizon

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        check_whole_episodes("es", rollout.horizon)
        self._pairs_at_once(rollout, theta)
        return rollout.reset(key, self.num_pairs)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        return in_chunks(
            partial(self._estimate_pairs, rollout, theta, key),
            state,
            rollout,
            self.num_pairs,
            self._pairs_at_once(rollout, theta),
        )

    def _estimate_pairs(
        self,
        rollout: Rollout,
        theta: jax.Array,
        key: jax.Array,
        first: Any,
        state: Particles,
    ) -> tuple[jax.Array, Particles, Report]:
        perturbation, thetas = perturb(
            rollout,
            theta,
            len(state.loss) // 2,
            draw_antithetic,
            key,
            self.num_pairs,
            theta.size,
            self.sigma,
            orthogonal=self.orthogonal,
            first=first,
        )
        particles, segment = play_episodes(rollout, state, thetas)
        contributions = es_gradient(segment.loss.sum(0), perturbation, self.sigma)
        report = describe(
            state,
            particles,
            segment,
            contributions,
            independent_pairs=not self.orthogonal,
        )
        return contributions, particles, report

    def _pairs_at_once(self, rollout: Rollout, theta: jax.Array) -> int:
        return pairs_at_once(
            rollout, self.pairs_per_chunk, self.num_pairs, theta.size, self.orthogonal
        )


def play_episodes(
    rollout: Rollout, particles: Particles, thetas: jax.Array | Thetas
) -> tuple[Particles, Segment]:
    """One whole episode of each particle, under its own row of thetas [N, D]."""
    assert rollout.horizon is not None  # the estimators' init refuses such a rollout
    return rollout.unroll(particles, thetas, rollout.horizon, single_episode=True)


@jax.jit
def es_gradient(loss: jax.Array, perturbation: jax.Array, sigma: Any) -> jax.Array:
    """Each particle's part of the ES gradient: e_i L_i / (N sigma^2).

    Args:
        loss: L of each particle. # shape=(N,)
        perturbation: e of each particle. # shape=(N, D)
        sigma: Standard deviation of the perturbations, one for all or [N, 1].

    Returns:
        The parts, whose sum is the gradient. # shape=(N, D)
    """
    return perturbation * loss[:, None] / (perturbation.shape[0] * sigma**2)

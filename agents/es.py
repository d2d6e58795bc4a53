"""Full-episode evolution strategies (Salimans et al. 2017, Algorithm 1), antithetic.

The gradient of the smoothed loss by its score function, without the rank shaping
(`fitness_shaping`) and weight decay of the paper (arXiv 1703.03864):

    repeat:
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        L_i = loss of one whole episode with theta + e_i
        gradient = 1 / (N sigma^2) sum_i e_i L_i
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax

from pes_rl.agents.core.chunks import chunk_size, in_chunks
from pes_rl.agents.core.estimator import check_population, check_whole_episodes
from pes_rl.agents.core.fitness_shaping import check_fitness_shaping, shaped_loss
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.agents.core.report import Report, describe
from pes_rl.envs.rollout.base import Particles, Rollout, Thetas
from pes_rl.envs.rollout.episodes import Segment


@dataclass(frozen=True)
class ES:
    """Full-episode ES: in each update every particle runs one whole episode.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        sigma: Standard deviation of the perturbations.
        orthogonal: Make the perturbations of an update orthogonal, which leaves the
            estimate's mean and lowers its variance; see `orthogonal_rows`.
        pairs_per_chunk: Pairs whose perturbations are in memory at once; None takes
            all, or as many as fit.
        fitness_shaping: `none`, or `centered-ranks` of the episodes' losses, which
            change what is estimated (docs/fitness_shaping.md) and need all pairs at
            once. The best pairs of whole episodes are `ARS`.

    Example (an update is made as in the example of `PES`):
        >>> es = ES(num_pairs=4, sigma=0.1)
        >>> es.max_steps(horizon=100)  # environment steps of an update
        800
    """

    num_pairs: int
    sigma: Any
    orthogonal: bool = False
    pairs_per_chunk: int | None = None
    fitness_shaping: Literal["none", "centered-ranks"] = "none"

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        if self.fitness_shaping == "top-pairs":
            raise ValueError(
                "fitness_shaping=top-pairs of whole episodes is what the agent ars "
                "does; use ars"
            )
        check_fitness_shaping(self)

    def max_steps(self, horizon: int | None) -> int:
        assert horizon is not None  # init refuses a rollout without one
        return 2 * self.num_pairs * horizon

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        check_whole_episodes("es", rollout.horizon)
        chunk_size(self, rollout, theta)  # Raises if the population cannot be cut.
        return rollout.reset(key, self.num_pairs)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        def estimate_pairs(
            first: Any, before: Particles
        ) -> tuple[jax.Array, Particles, Report]:
            e, thetas = perturb_antithetic(
                rollout,
                theta,
                key,
                self.num_pairs,
                self.sigma,
                orthogonal=self.orthogonal,
                first=first,
                count=len(before.loss) // 2,
            )
            after, segment = play_episodes(rollout, before, thetas)
            loss, std = shaped_loss(self, segment)
            contributions = es_gradient(loss, e, self.sigma)
            report = describe(
                before,
                after,
                segment,
                contributions,
                independent_pairs=not self.orthogonal,
                loss_std=std,
            )
            return contributions, after, report

        return in_chunks(self, rollout, theta, estimate_pairs, state)


def play_episodes(
    rollout: Rollout, particles: Particles, thetas: jax.Array | Thetas
) -> tuple[Particles, Segment]:
    """Run one whole episode of each particle, under its own row of thetas [N, D]."""
    assert rollout.horizon is not None  # the estimators' init refuses such a rollout
    return rollout.unroll(particles, thetas, rollout.horizon, single_episode=True)


@jax.jit
def es_gradient(loss: jax.Array, perturbation: jax.Array, sigma: Any) -> jax.Array:
    """Each particle's part of the ES gradient: e_i L_i / (N sigma^2).

    Args:
        loss: L of each particle. # shape=(N,)
        perturbation: e of each particle. # shape=(N, D)
        sigma: Standard deviation of the perturbations, one for all, [N, 1] or
            [1, D].

    Returns:
        The parts, whose sum is the gradient. # shape=(N, D)

    Example:
        >>> import numpy as np
        >>> loss, perturbation = np.array([1.0, 3.0]), np.array([[0.5], [-0.5]])
        >>> es_gradient(loss, perturbation, sigma=0.5).sum(0).tolist()
        [-2.0]
    """
    return perturbation * loss[:, None] / (perturbation.shape[0] * sigma**2)

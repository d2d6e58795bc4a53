"""Augmented random search (Mania, Guy, Recht 2018, Algorithm 1; arXiv 1803.07055).

    repeat:
        draw directions epsilon_k ~ N(0, I), one for each pair k
        L+_k, L-_k = loss of one whole episode with theta +- sigma epsilon_k
        keep the b pairs with the lowest min(L+_k, L-_k)
        direction = 1 / (b std) sum_k (L+_k - L-_k) epsilon_k, over the kept ones,
                    std that of their 2b losses

The paper's step is plain SGD along this direction, with the learning rate alpha. With
normalised observations it is the paper's V2, without them V1; with b < P, V2-t or V1-t.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.estimator import check_population, check_whole_episodes
from pes_rl.agents.core.fitness_shaping import (
    check_top_pairs,
    pairs_by_better_member,
)
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.agents.core.report import Report, describe
from pes_rl.agents.es import play_episodes
from pes_rl.envs.rollout.base import Particles, Rollout


@dataclass(frozen=True)
class ARS:
    """Augmented random search: whole episodes, of which the best pairs are used.

    The direction is not an unbiased estimate of a gradient: it is divided by the
    standard deviation of the losses, and pairs are selected by their losses. With b = P
    it is that of `es` with normalised returns.

    Attributes:
        num_pairs: Antithetic pairs P (the paper's N); 2P particles.
        num_top_pairs: Pairs b that are used, at most P.
        sigma: Standard deviation of the perturbations (the paper's nu).

    Example (an update is made as in the example of `PES`):
        >>> ars = ARS(num_pairs=4, num_top_pairs=2, sigma=0.1)
        >>> ars.max_steps(horizon=100)  # environment steps of an update
        800
    """

    num_pairs: int
    num_top_pairs: int
    sigma: Any

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        check_top_pairs(self.num_top_pairs, self.num_pairs)

    def max_steps(self, horizon: int | None) -> int:
        assert horizon is not None  # init refuses a rollout without one
        return 2 * self.num_pairs * horizon

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        del theta
        check_whole_episodes("ars", rollout.horizon)
        return rollout.reset(key, self.num_pairs)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        perturbation, thetas = perturb_antithetic(
            rollout, theta, key, self.num_pairs, self.sigma
        )
        particles, segment = play_episodes(rollout, state, thetas)
        contributions = ars_direction(
            segment.loss.sum(0), perturbation, self.num_top_pairs, self.sigma
        )
        report = describe(state, particles, segment, contributions)
        return contributions.sum(0), particles, report


@partial(jax.jit, static_argnames="num_top_pairs")
def ars_direction(
    loss: jax.Array, perturbation: jax.Array, num_top_pairs: int, sigma: Any
) -> jax.Array:
    """Each particle's part: (e_i / sigma) L_i / (b std), or 0 if its pair is not used.

    If the losses of the used pairs are all equal, their std is 0 and all parts are 0.

    Args:
        loss: L of each particle. # shape=(N,)
        perturbation: e of each particle. # shape=(N, D)
        num_top_pairs: b.
        sigma: Standard deviation of the perturbations.

    Returns:
        The parts, whose sum is the direction. # shape=(N, D)

    Example:
        >>> loss, noise = jnp.array([1.0, 3.0]), jnp.array([[0.1], [-0.1]])
        >>> parts = ars_direction(loss, noise, num_top_pairs=1, sigma=0.1)
        >>> parts.tolist()  # losses 1 and 3 have the standard deviation 1
        [[1.0], [-3.0]]
    """
    pairs = loss.reshape(-1, 2)
    top = pairs_by_better_member(loss)[:num_top_pairs]
    kept = pairs[top]
    # Not std > 0: the std of equal numbers need not be 0, because their mean rounds.
    differ = kept.max() > kept.min()
    std = jnp.where(differ, jnp.std(kept), jnp.inf)
    weight = jnp.zeros_like(pairs).at[top].set(kept / (num_top_pairs * std))
    return perturbation * weight.reshape(-1, 1) / sigma

"""Generalised PES (Li, Harrison, Sohl-Dickstein, Smith, Metz 2023), noise period M.

    for each particle i: s_i = first state, xi_i = 0
    repeat:
        where the episode has lasted a multiple of M steps (0 too):
            draw antithetic perturbations e_i ~ N(0, sigma^2 I)
            xi_i = xi_i + e_i
        s_i, L_i = unroll(s_i, theta + e_i, K steps)
        gradient = 1 / (N sigma^2) sum_i xi_i L_i

A perturbation lasts M steps, a multiple of K. M = K is PES, with new noise in every
unroll; M >= T is NRES (ES-Single), with one noise for the episode. (NeurIPS 2023, arXiv
2304.12180, Algorithm 2.)
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.estimator import check_population, check_truncation_length
from pes_rl.agents.core.perturbations import perturb
from pes_rl.agents.core.report import Report, describe
from pes_rl.agents.nres import episode_perturbations
from pes_rl.agents.pes import pes_gradient
from pes_rl.envs.rollout.base import Particles, Rollout


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GPESState:
    """State of GPES between two updates: particles, their noise and accumulators.

    Attributes:
        particles: N particles.
        key: Key data; a perturbation is decided by it, the pair, the episode and the
            period in the episode. # shape=(2,), dtype=uint32
        period_sigma: Standard deviation of each particle's running perturbation.
            # shape=(N,), dtype=float32
        accumulator: Sum of the perturbations of each running episode.
            # shape=(N, D), dtype=float32
        sigma: Standard deviation that the accumulator refers to.
            # shape=(), dtype=float32
    """

    particles: Particles
    key: jax.Array
    period_sigma: jax.Array
    accumulator: jax.Array
    sigma: jax.Array


@dataclass(frozen=True)
class GPES:
    """GPES: an unbiased estimate from partial unrolls, with new noise every M steps.

    Unbiased for the loss smoothed by one perturbation in each M steps.

    Differences from the paper: episodes may end at any step of an unroll. Periods are
    counted from the beginning of the particle's own episode. A particle whose episode
    ends waits for the next unroll, in which a new episode, a new period and an empty
    accumulator begin; the rest of the old period is dropped. The same holds for the
    shorter first episodes of staggered particles. The members' j-th episodes have
    opposite perturbations in the same period, whenever each of them reaches it. Sigma
    may change between two updates: a running perturbation keeps its own, and the
    accumulator is rescaled as in PES.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        noise_period: Steps M that a perturbation lasts, a multiple of K.
        sigma: Standard deviation of the perturbations.
        stagger: Spread the particles over the episode, so that every update sees all
            phases of it; needs a finite horizon.
        orthogonal: Make the perturbations of the pairs' j-th episodes orthogonal, in
            each period; see `orthogonal_rows`.

    Example (an update is made as in the example of `PES`):
        >>> gpes = GPES(4, truncation_length=20, noise_period=40, sigma=0.1)
        >>> gpes.max_steps(horizon=100)  # environment steps of an update
        160
    """

    num_pairs: int
    truncation_length: int
    noise_period: int
    sigma: Any
    stagger: bool = False
    orthogonal: bool = False

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        check_truncation_length(self.truncation_length, None)
        if self.noise_period < 1 or self.noise_period % self.truncation_length != 0:
            below = self.noise_period // self.truncation_length * self.truncation_length
            raise ValueError(
                f"noise_period={self.noise_period} must be a multiple of "
                f"truncation_length={self.truncation_length}; "
                f"use {max(below, self.truncation_length)}, for example"
            )

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return 2 * self.num_pairs * self.truncation_length

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> GPESState:
        check_truncation_length(self.truncation_length, rollout.horizon)
        reset_key, key = jax.random.split(key)
        num_particles = 2 * self.num_pairs
        return GPESState(
            particles=rollout.reset(reset_key, self.num_pairs, stagger=self.stagger),
            key=jax.random.key_data(key),
            period_sigma=jnp.full(num_particles, self.sigma, jnp.float32),
            accumulator=jnp.zeros((num_particles, theta.size)),
            sigma=jnp.float32(self.sigma),
        )

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: GPESState, key: jax.Array
    ) -> tuple[jax.Array, GPESState, Report]:
        del key  # The state decides every perturbation.
        clock = state.particles.clock
        # Episodes begin with an unroll, so each unroll begins at a multiple of K.
        period, since = jnp.divmod(jnp.asarray(clock.elapsed), self.noise_period)
        is_new = since == 0
        period_sigma = jnp.where(is_new, self.sigma, state.period_sigma)
        perturbation, thetas = perturb(
            rollout,
            theta,
            self.num_pairs,
            episode_perturbations,
            period_sigma,
            state.key,
            clock.episode,
            theta.size,
            period,
            num_pairs=self.num_pairs,
            orthogonal=self.orthogonal,
        )
        particles, segment = rollout.unroll(
            state.particles,
            thetas,
            self.truncation_length,
            single_episode=True,
        )
        contributions, accumulator = pes_gradient(
            segment,
            state.accumulator * (self.sigma / state.sigma) ** 2,
            jnp.where(is_new[:, None], perturbation, 0.0),
            self.sigma,
        )
        report = describe(
            state.particles,
            particles,
            segment,
            contributions,
            accumulator,
            independent_pairs=not self.orthogonal,
        )
        after = GPESState(
            particles, state.key, period_sigma, accumulator, jnp.float32(self.sigma)
        )
        return contributions.sum(0), after, report

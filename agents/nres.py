"""Noise-reuse evolution strategies (Li, Harrison, Sohl-Dickstein, Smith, Metz 2023).

    for each particle i: s_i = first state
    repeat:
        where an episode begins, draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        s_i, L_i = unroll(s_i, theta + e_i, K steps)
        gradient = 1 / (N sigma^2) sum_i e_i L_i

One perturbation lasts a whole episode, so what PES accumulates is the perturbation
itself, however many unrolls it has lived through. Vicol, Kolter and Swersky (ICML 2023)
call the same estimator ES-Single. (NeurIPS 2023, arXiv 2304.12180, Algorithm 3.)
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.chunks import in_chunks, pairs_at_once
from pes_rl.agents.core.estimator import (
    Report,
    check_population,
    check_truncation_length,
    describe,
)
from pes_rl.agents.core.noise import normal_rows
from pes_rl.agents.core.perturbations import draw_in_blocks, draw_orthogonal, perturb
from pes_rl.agents.es import es_gradient
from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NRESState:
    """Particles, and where their perturbations come from.

    Attributes:
        particles: N particles.
        key: Key data; with the pair and the episode it decides a perturbation.
            # shape=(2,), dtype=uint32
        sigma: Standard deviation that each running episode's perturbation was drawn
            with. # shape=(N,), dtype=float32
    """

    particles: Particles
    key: jax.Array
    sigma: jax.Array


@dataclass(frozen=True)
class NRES:
    """Estimates from partial unrolls, one perturbation an episode.

    Unbiased for the objective that full-episode ES has, the loss smoothed by one
    perturbation an episode: each of the episode's losses is weighted by the score
    function of that one. PES smooths by a new one in each unroll.

    Differences from the paper: episodes may end at any step of an unroll. The particle
    then waits for the next unroll, in which its new episode begins with a new
    perturbation; the members' j-th episodes have opposite ones, whenever they begin.
    Sigma may change between two updates; a running episode keeps its own.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        sigma: Standard deviation of the perturbations.
        stagger: Spread the particles over the episode, so that every update sees all
            phases of it, and new perturbations; needs a finite horizon.
        orthogonal: Make the perturbations of the pairs' j-th episodes orthogonal, for
            each j, which leaves the estimate's mean (for a theta that is held) and
            lowers its variance; see `orthogonal_rows`. A particle finds its own by
            decomposing those of all, so an update costs N decompositions.
        pairs_per_chunk: Pairs whose perturbations are held at once; None takes all, or
            as many as fit. See `chunks`.
    """

    num_pairs: int
    truncation_length: int
    sigma: Any
    stagger: bool = False
    orthogonal: bool = False
    pairs_per_chunk: int | None = None

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        check_truncation_length(self.truncation_length, None)

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return 2 * self.num_pairs * self.truncation_length

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> NRESState:
        check_truncation_length(self.truncation_length, rollout.horizon)
        self._pairs_at_once(rollout, theta)
        reset_key, key = jax.random.split(key)
        particles = rollout.reset(reset_key, self.num_pairs, stagger=self.stagger)
        sigma = jnp.full(2 * self.num_pairs, self.sigma, jnp.float32)
        return NRESState(particles, jax.random.key_data(key), sigma)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: NRESState, key: jax.Array
    ) -> tuple[jax.Array, NRESState, Report]:
        del key  # Every perturbation is decided by the state.
        sigma = jnp.where(state.particles.clock.elapsed == 0, self.sigma, state.sigma)
        gradient, (particles, sigma), report = in_chunks(
            partial(self._estimate_pairs, rollout, theta, state.key),
            (state.particles, sigma),
            rollout,
            self.num_pairs,
            self._pairs_at_once(rollout, theta),
        )
        return gradient, NRESState(particles, state.key, sigma), report

    def _estimate_pairs(
        self, rollout: Rollout, theta: jax.Array, key: Array, first: Any, state: Any
    ) -> tuple[jax.Array, Any, Report]:
        before, sigma = state
        perturbation, thetas = perturb(
            rollout,
            theta,
            len(sigma) // 2,
            episode_perturbations,
            sigma,
            key,
            before.clock.episode,
            theta.size,
            num_pairs=self.num_pairs,
            orthogonal=self.orthogonal,
            first=first,
        )
        particles, segment = rollout.unroll(
            before, thetas, self.truncation_length, single_episode=True
        )
        loss = segment.loss.sum(0)
        contributions = es_gradient(loss, perturbation, sigma[:, None])
        report = describe(
            before,
            particles,
            segment,
            contributions,
            independent_pairs=not self.orthogonal,
        )
        return contributions, (particles, sigma), report

    def _pairs_at_once(self, rollout: Rollout, theta: jax.Array) -> int:
        return pairs_at_once(
            rollout, self.pairs_per_chunk, self.num_pairs, theta.size, self.orthogonal
        )


def episode_perturbations(
    sigma: jax.Array, *which: Any, rows: slice, **options: Any
) -> jax.Array:
    """Rows of sigma_i times `episode_noise(*which, **options)`, for `perturb`."""
    count = rows.stop - rows.start
    noise = episode_noise(*which, begin=rows.start, count=count, **options)
    return sigma[rows, None] * noise


@partial(
    jax.jit,
    static_argnames=("num_parameters", "num_pairs", "orthogonal", "count", "blocks"),
)
def episode_noise(
    key: Array,
    episode: Array,
    num_parameters: int,
    period: Array | None = None,
    *,
    num_pairs: int | None = None,
    orthogonal: bool = False,
    first: int | jax.Array = 0,
    begin: int | jax.Array = 0,
    count: int | None = None,
    blocks: bool = False,
) -> jax.Array:
    """Unit normal noise of each particle's given episode, antithetic within a pair.

    Args:
        key: Key data. # shape=(2,)
        episode: Index of each particle's episode. # shape=(N,)
        num_parameters: D.
        period: Index of the noise period in the episode, where it has several (GPES);
            period 0 has the noise of an episode that has one. # shape=(N,)
        num_pairs: P of the population; None where the particles are all of it.
        orthogonal: Make the noise of the population's episodes of the same index, in
            the same period, orthogonal; see `orthogonal_rows`.
        first: The pair that the first of these particles belongs to.
        begin: First of the particles whose noise is drawn.
        count: How many they are; None for all.
        blocks: See `draw_in_blocks`.

    Returns:
        +epsilon of (pair, episode, period) for the first member, -epsilon for the
        second. # shape=(count, D), dtype=float32
    """
    num_particles = len(episode)
    population = num_particles // 2 if num_pairs is None else num_pairs
    episodes = jnp.asarray(episode)
    periods = jnp.zeros_like(episodes) if period is None else jnp.asarray(period)

    def noise(member: jax.Array, episode: jax.Array, period: jax.Array) -> jax.Array:
        def draw(pair: jax.Array) -> jax.Array:
            pair_key = jax.random.fold_in(jax.random.wrap_key_data(key), pair)
            noise_key = jax.random.fold_in(pair_key, episode)
            noise_key = jnp.where(
                period == 0, noise_key, jax.random.fold_in(noise_key, period)
            )
            (row,) = normal_rows(noise_key, num_parameters, 0, 1)
            return row

        def draw_rows(first: Any, count: int) -> jax.Array:
            return jax.vmap(draw)(first + jnp.arange(count))

        pair, size = first + member // 2, num_parameters
        if orthogonal:
            (own,) = draw_orthogonal(draw_rows, population, size, pair, 1)
        else:
            own = draw(pair)
        return jnp.where(member % 2 == 0, own, -own)

    def draw_members(first: Any, count: int) -> jax.Array:
        if count == num_particles:  # None is to be looked up on another device.
            return jax.vmap(noise)(jnp.arange(count), episodes, periods)
        members = jnp.minimum(first + jnp.arange(count), num_particles - 1)
        return jax.vmap(noise)(members, episodes[members], periods[members])

    count = num_particles if count is None else count
    return draw_in_blocks(
        draw_members, num_particles, num_parameters, begin, count, blocks
    )

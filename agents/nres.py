"""Noise-reuse evolution strategies (Li, Harrison, Sohl-Dickstein, Smith, Metz 2023).

    for each particle i: s_i = first state
    repeat:
        where an episode begins, draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        s_i, L_i = unroll(s_i, theta + e_i, K steps)
        gradient = 1 / (N sigma^2) sum_i e_i L_i

One perturbation lasts a whole episode, so the perturbation itself takes the place of
PES's accumulator. Vicol, Kolter and Swersky (ICML 2023) call the same estimator
ES-Single. (NeurIPS 2023, arXiv 2304.12180, Algorithm 3.)
"""

from dataclasses import dataclass
from functools import partial
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
from pes_rl.agents.core.perturbations import draw_in_blocks, draw_orthogonal, perturb
from pes_rl.agents.core.random_normals import normal_rows
from pes_rl.agents.core.report import Report, describe
from pes_rl.agents.es import es_gradient
from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NRESState:
    """State of NRES between two updates: particles, and the key of their noise.

    Attributes:
        particles: N particles.
        key: Key data; a perturbation is decided by it, the pair and the episode.
            # shape=(2,), dtype=uint32
        sigma: Standard deviation of each running episode's perturbation, one for all
            parameters or one for each. # shape=(N,) or (N, D), dtype=float32
    """

    particles: Particles
    key: jax.Array
    sigma: jax.Array


@dataclass(frozen=True)
class NRES(PartialUnrollEstimator):
    """NRES: a gradient estimate from partial unrolls, with one perturbation an episode.

    Unbiased for the objective of full-episode ES, the loss smoothed by one perturbation
    an episode: each of the episode's losses is weighted by that perturbation's score
    function. PES smooths by a new perturbation in each unroll.

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
            each j, which leaves the estimate's mean (for a constant theta) and lowers
            its variance; see `orthogonal_rows`. The perturbation of one particle needs
            a decomposition of those of all, so an update costs N decompositions.
        pairs_per_chunk: Pairs whose perturbations are in memory at once; None takes
            all, or as many as fit.
        fitness_shaping: `none`; or `centered-ranks` or `top-pairs` of the losses of
            each unroll, which change what is estimated (docs/fitness_shaping.md) and
            need all pairs at once.
        num_top_pairs: Pairs b that are used with `top-pairs`.

    Example (an update is made as in the example of `PES`):
        >>> nres = NRES(num_pairs=4, truncation_length=20, sigma=0.1)
        >>> nres.max_steps(horizon=100)  # environment steps of an update
        160
    """

    stagger: bool = False
    orthogonal: bool = False
    pairs_per_chunk: int | None = None
    fitness_shaping: FitnessShaping = "none"
    num_top_pairs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fitness_shaping(self)

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> NRESState:
        check_truncation_length(self.truncation_length, rollout.horizon)
        chunk_size(self, rollout, theta)  # Raises if the population cannot be cut.
        reset_key, key = jax.random.split(key)
        particles = rollout.reset(reset_key, self.num_pairs, stagger=self.stagger)
        own = jnp.asarray(self.sigma, jnp.float32)
        sigma = jnp.broadcast_to(own, (2 * self.num_pairs, *own.shape[1:]))
        return NRESState(particles, jax.random.key_data(key), sigma)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: NRESState, key: jax.Array
    ) -> tuple[jax.Array, NRESState, Report]:
        del key  # The state decides every perturbation.

        def estimate_pairs(first: Any, rows: Any) -> tuple[jax.Array, Any, Report]:
            before, sigma = rows
            e, thetas = perturb(
                rollout,
                theta,
                len(sigma) // 2,
                episode_perturbations,
                sigma,
                state.key,
                before.clock.episode,
                theta.size,
                num_pairs=self.num_pairs,
                orthogonal=self.orthogonal,
                first=first,
            )
            after, segment = rollout.unroll(
                before, thetas, self.truncation_length, single_episode=True
            )
            loss, std = shaped_loss(self, segment)
            contributions = es_gradient(loss, e, _columns(sigma))
            report = describe(
                before,
                after,
                segment,
                contributions,
                independent_pairs=not self.orthogonal,
                loss_std=std,
            )
            return contributions, (after, sigma), report

        begins = state.particles.clock.elapsed == 0
        if state.sigma.ndim == 2:
            begins = begins[:, None]
        sigma = jnp.where(begins, self.sigma, state.sigma)
        gradient, (particles, sigma), report = in_chunks(
            self, rollout, theta, estimate_pairs, (state.particles, sigma)
        )
        return gradient, NRESState(particles, state.key, sigma), report


def episode_perturbations(
    sigma: jax.Array, *which: Any, rows: slice, **options: Any
) -> jax.Array:
    """The given rows of sigma_i `episode_noise(*which, **options)`, for `perturb`."""
    count = rows.stop - rows.start
    noise = episode_noise(*which, begin=rows.start, count=count, **options)
    return _columns(sigma[rows]) * noise


def _columns(sigma: jax.Array) -> jax.Array:
    """Sigma beside the parameters of each particle. # shape=(N, 1) or (N, D)."""
    return sigma[:, None] if sigma.ndim == 1 else sigma


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
        num_pairs: Pairs of the population; None where these particles are all of it.
        orthogonal: Make the noise of the population's episodes of the same index, in
            the same period, orthogonal; see `orthogonal_rows`.
        first: The pair that the first of these particles belongs to.
        begin: First of these particles whose noise is drawn.
        count: Number of particles whose noise is drawn; None for all.
        blocks: See `draw_in_blocks`.

    Returns:
        +epsilon of (pair, episode, period) for the first member, -epsilon for the
        second. # shape=(count, D), dtype=float32

    Example:
        >>> key = jax.random.key_data(jax.random.key(0))
        >>> noise = episode_noise(key, jnp.array([0, 0, 0, 1]), num_parameters=3)
        >>> bool((noise[0] == -noise[1]).all())  # a pair's members in the same episode
        True
        >>> bool((noise[2] == -noise[3]).any())  # the second is an episode ahead
        False
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
        if count == num_particles:  # No indexing, which would gather across devices.
            return jax.vmap(noise)(jnp.arange(count), episodes, periods)
        members = jnp.minimum(first + jnp.arange(count), num_particles - 1)
        return jax.vmap(noise)(members, episodes[members], periods[members])

    count = num_particles if count is None else count
    return draw_in_blocks(
        draw_members, num_particles, num_parameters, begin, count, blocks
    )

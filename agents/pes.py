"""Persistent Evolution Strategies (Vicol, Metz, Sohl-Dickstein 2021, Algorithm 2).

    for each particle i: s_i = first state, xi_i = 0
    repeat:
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        s_i, L_i = unroll(s_i, theta + e_i, K steps)
        xi_i = xi_i + e_i
        gradient = 1 / (N sigma^2) sum_i xi_i L_i

An episode of m unrolls lives under m perturbations; the loss of its t-th unroll depends
on the first t of them, and their sum is what the score function of that loss needs.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.accumulators import UpdateHistory, recompute_accumulators
from pes_rl.agents.core.chunks import in_chunks, pairs_at_once
from pes_rl.agents.core.estimator import (
    Report,
    check_population,
    check_truncation_length,
    describe,
)
from pes_rl.agents.core.perturbations import draw_antithetic, perturb
from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Segment, split_loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PESState:
    """Particles and what their running episodes have lived under.

    Attributes:
        particles: N particles.
        accumulator: Sum of the perturbations since each running episode began. Where it
            is drawn again from the past, their number alone.
            # shape=(N, D) or (N, 1), dtype=float32
        sigma: Standard deviation that the accumulator refers to.
            # shape=(), dtype=float32
        past: What accumulators are drawn again from; None where they are kept.
    """

    particles: Particles
    accumulator: jax.Array
    sigma: jax.Array
    past: UpdateHistory | None = None


@dataclass(frozen=True)
class PES:
    """Unbiased gradient estimates from partial unrolls.

    Differences from the paper: episodes may end at any step of an unroll, the members
    of a pair end independently (so the accumulator is per particle), the particles'
    phases can be staggered over the episode, and sigma may change between two updates.
    The score function of a perturbation e drawn with sigma is e / sigma^2, so a sum of
    perturbations counts for a new sigma' once it is scaled by (sigma' / sigma)^2; the
    estimate stays an unbiased one of the objective smoothed by the sigmas lived under.

    When an episode ends inside an unroll, its particle waits for the next unroll to
    begin the next episode. Then each episode brings the score function times its own
    losses and nothing else, K = T is full-episode ES, and the estimate is unbiased
    however ends depend on theta. With `restart_at_once` the next episode begins in the
    same unroll, and no step is idle. Where ends do not depend on theta that is unbiased
    too; where they do, it is not: how much of the new episode falls into this unroll
    then depends on the perturbation, and that is credited to it. With a reward of 1 a
    step, say, a particle's unroll would bring K whatever it did.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T. K = T is
            full-episode ES.
        sigma: Standard deviation of the perturbations.
        stagger: Spread the particles over the episode, so that every update sees all
            phases of it; needs a finite horizon.
        restart_at_once: Begin the next episode inside the unroll in which one ended.
        pairs_per_chunk: Pairs whose perturbations are held at once; None takes all, or
            as many as fit (`chunks`). In chunks accumulators are not held at all but
            drawn again (`redrawn`), where episodes have a longest length.
    """

    num_pairs: int
    truncation_length: int
    sigma: Any
    stagger: bool = False
    restart_at_once: bool = False
    pairs_per_chunk: int | None = None

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        check_truncation_length(self.truncation_length, None)

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return 2 * self.num_pairs * self.truncation_length

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> PESState:
        check_truncation_length(self.truncation_length, rollout.horizon)
        particles = rollout.reset(key, self.num_pairs, stagger=self.stagger)
        size, past = theta.size, None
        in_parts = self._pairs_at_once(rollout, theta) < self.num_pairs
        if in_parts and rollout.horizon is not None:
            size, past = 1, UpdateHistory.empty(rollout.horizon, self.truncation_length)
        accumulator = jnp.zeros((2 * self.num_pairs, size))
        return PESState(particles, accumulator, jnp.float32(self.sigma), past)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: PESState, key: jax.Array
    ) -> tuple[jax.Array, PESState, Report]:
        accumulator, past = state.accumulator, state.past
        if past is None:
            accumulator = accumulator * (self.sigma / state.sigma) ** 2
        gradient, (particles, accumulator), report = in_chunks(
            partial(self._estimate_pairs, rollout, theta, past, key),
            (state.particles, accumulator),
            rollout,
            self.num_pairs,
            self._pairs_at_once(rollout, theta),
        )
        if past is not None:
            past = past.after(key, self.sigma)
        after = PESState(particles, accumulator, jnp.float32(self.sigma), past)
        return gradient, after, report

    def _estimate_pairs(
        self,
        rollout: Rollout,
        theta: jax.Array,
        past: UpdateHistory | None,
        key: jax.Array,
        first: Any,
        state: Any,
    ) -> tuple[jax.Array, Any, Report]:
        before, kept = state
        perturbation, thetas = perturb(
            rollout,
            theta,
            len(kept) // 2,
            draw_antithetic,
            key,
            self.num_pairs,
            theta.size,
            self.sigma,
            first=first,
        )
        particles, segment = rollout.unroll(
            before,
            thetas,
            self.truncation_length,
            single_episode=not self.restart_at_once,
        )
        accumulator = kept
        if past is not None:
            accumulator = recompute_accumulators(
                past, kept, self.num_pairs, theta.size, self.sigma, first
            )
        contributions, accumulator = pes_gradient(
            segment, accumulator, perturbation, self.sigma
        )
        report = describe(before, particles, segment, contributions, accumulator)
        if past is not None:
            accumulator = accumulate(segment, kept, jnp.ones_like(kept))
        return contributions, (particles, accumulator), report

    def _pairs_at_once(self, rollout: Rollout, theta: jax.Array) -> int:
        return pairs_at_once(rollout, self.pairs_per_chunk, self.num_pairs, theta.size)


@jax.jit
def pes_gradient(
    segment: Segment, accumulator: jax.Array, perturbation: jax.Array, sigma: Any
) -> tuple[jax.Array, jax.Array]:
    """Each particle's part of the PES gradient, and the accumulators after the unroll.

    With xi the accumulator before the unroll, e this unroll's perturbation, L_old the
    loss up to and including the first end of an episode and L_new the loss after it:

        part_i = ((xi_i + e_i) L_old_i + e_i L_new_i) / (N sigma^2)

    The gradient is the sum of the parts. Without an end in the unroll this is
    Algorithm 2. A new episode has lived under e alone, so that is what its losses are
    weighted by and what its accumulator holds. One that has not begun, because the old
    one ended with the unroll's last step or waits since, has lived under nothing yet.

    Args:
        segment: An unroll of K steps by N particles.
        accumulator: xi before the unroll. # shape=(N, D)
        perturbation: e of this unroll. # shape=(N, D)
        sigma: Standard deviation of the perturbations.

    Returns:
        (parts [N, D], accumulator after the unroll [N, D]).
    """
    lived_under = accumulator + perturbation
    old, new = split_loss(segment)
    weighted = lived_under * old[:, None] + perturbation * new[:, None]
    parts = weighted / (perturbation.shape[0] * sigma**2)
    return parts, accumulate(segment, accumulator, perturbation)


def accumulate(
    segment: Segment, accumulator: jax.Array, perturbation: jax.Array
) -> jax.Array:
    """What each particle's episode running after the unroll has lived under.

    Arguments as of `pes_gradient`. # shape=(N, D)
    """
    ended = segment.ended.any(0)[:, None]
    after = jnp.where(ended, perturbation, accumulator + perturbation)
    not_begun = jnp.logical_or(segment.ended[-1], ~segment.simulated[-1])
    return jnp.where(not_begun[:, None], 0.0, after)

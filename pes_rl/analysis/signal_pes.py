"""A stream of PES: all trace decays and critics from the same unrolls.

A chain is an antithetic pair with a new perturbation in each unroll. PES with any trace
decay is linear in its losses and perturbations, so one stream serves all of them, with
critics and without, which are fitted to all chains as they go on.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pes_rl.agents import pes_gradient
from pes_rl.agents.core.critic import (
    Critic,
    critic_losses,
    critic_states,
    make_critic,
)
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.analysis.signal_stream import Setting, State, Update, update_of_pairs
from pes_rl.envs import Particles, Rollout, Segment
from pes_rl.envs.rollout.episodes import split_loss


@dataclass(frozen=True)
class PESStream:
    """PES with several trace decays and critics, from the same unrolls.

    Attributes:
        length: Steps K of an unroll.
        sigma: Standard deviation of the perturbations.
        trace_decays: lambda of each estimator.
        critic_discounts: That of each critic, None for no critic; each goes with every
            lambda.
    """

    length: int
    sigma: float
    trace_decays: tuple[float, ...] = (1.0,)
    critic_discounts: tuple[float | None, ...] = (None,)

    shares_states: ClassVar[bool] = False

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(
            Setting("pes", self.length, decay, discount)
            for discount in self.critic_discounts
            for decay in self.trace_decays
        )

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array, chains: int
    ) -> State:
        shape = len(self.trace_decays), 2 * chains, theta.size
        particles = rollout.reset(key, chains)
        critics = tuple(
            None if discount is None else make_critic(rollout, particles)
            for discount in self.critic_discounts
        )
        return particles, (jnp.zeros(shape), critics)

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        before, (accumulators, critics) = state
        chains = accumulators.shape[1] // 2
        e, thetas = perturb_antithetic(rollout, theta, key, chains, self.sigma)
        after, segment = rollout.unroll(
            before, thetas, self.length, single_episode=True
        )
        losses, critics = self._losses(rollout, critics, before, after, segment)
        decays = jnp.array(self.trace_decays, jnp.float32)
        parts, accumulators = decayed_parts(
            segment, accumulators, decays, e, self.sigma, losses
        )
        return update_of_pairs(parts, segment), (after, (accumulators, critics))

    def _losses(
        self,
        rollout: Rollout,
        critics: tuple[Critic | None, ...],
        before: Particles,
        after: Particles,
        segment: Segment,
    ) -> tuple[jax.Array, tuple[Critic | None, ...]]:
        """(losses with each critic [B, N], the critics after the unroll)."""
        losses, fitted = [], []
        for critic, discount in zip(critics, self.critic_discounts, strict=True):
            if critic is None or discount is None:
                loss = split_loss(segment)[0]
            else:
                states = (critic_states(rollout, p) for p in (before, after))
                made, critic = critic_losses(critic, *states, segment, discount)
                loss = made.delta
            losses.append(loss)
            fitted.append(critic)
        return jnp.stack(losses), tuple(fitted)


@jax.jit
def decayed_parts(
    segment: Segment,
    accumulators: jax.Array,
    decays: jax.Array,
    perturbation: jax.Array,
    sigma: Any,
    losses: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`pes_gradient` for each of B losses and of L decays.

    Args:
        segment: Unroll of N particles.
        accumulators: Before it. # shape=(L, N, D)
        decays: lambda of each. # shape=(L,)
        perturbation: # shape=(N, D)
        sigma: Its standard deviation.
        losses: # shape=(B, N)

    Returns:
        (parts [B L, N, D], accumulators [L, N, D]).
    """
    by_decay = jax.vmap(pes_gradient, (None, 0, None, None, None))
    by_loss = jax.vmap(by_decay, (None, None, None, None, 0), out_axes=(0, None))
    decayed = decays[:, None, None] * accumulators
    parts, after = by_loss(segment, decayed, perturbation, sigma, losses)
    return parts.reshape(-1, *parts.shape[2:]), after

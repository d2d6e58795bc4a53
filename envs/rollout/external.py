"""The driver of simulations outside this package: parameters out, losses in."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pes_rl.envs.rollout.base import Particles, Rollout, Thetas, rows_of
from pes_rl.envs.rollout.episodes import (
    NO_LIMIT,
    Array,
    Segment,
    record_step,
    running_loss,
    start_clock,
)
from pes_rl.envs.rollout.observations import ObservationMoments


@dataclass
class ExternalRollout:
    """Rollout of simulations that other code steps; it keeps their clocks.

    `unroll` records which parameters it is asked to unroll, and returns the losses that
    it was given. JAX can trace it, but not in a loop, because the record is a side
    effect.

    Attributes:
        horizon: Time limit of an episode, in steps.
        diverged_loss: Loss of the step at which a simulation diverges.
        told: Losses and ends of all unrolls of an estimate, side by side; None where
            only what is asked is of interest, and each unroll returns zeros.
        asked: Particles, parameters and steps of the unrolls so far.
    """

    horizon: int | None
    diverged_loss: float
    told: tuple[jax.Array, jax.Array] | None
    asked: list[tuple[Particles, jax.Array, int]] = field(default_factory=list)

    on_device = False
    can_copy = True
    can_differentiate = False

    def differentiable(self) -> Rollout:
        raise ValueError("simulations outside pes_rl have no derivatives")

    def normalized(self, moments: ObservationMoments) -> Rollout:
        raise ValueError("simulations outside pes_rl normalise their own observations")

    def reset(
        self,
        key: jax.Array,
        num_pairs: int,
        *,
        members: int = 2,
        stagger: bool = False,
    ) -> Particles:
        clock = start_clock(
            key, num_pairs, self.horizon, members=members, stagger=stagger
        )
        number = jnp.arange(members * num_pairs, dtype=jnp.int32)
        return Particles(number, clock, jnp.zeros(len(number)))

    def observations(self, particles: Particles) -> Array:
        raise ValueError("simulations outside pes_rl keep their observations")

    def take(self, particles: Particles, indices: Any) -> Particles:
        return jax.tree.map(lambda leaf: leaf[indices], particles)

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        assert single_episode  # `AskTell` refuses estimators that restart.
        count, before = len(particles.loss), sum(len(t) for _, t, _ in self.asked)
        rows = rows_of(thetas)
        rows = jnp.broadcast_to(rows, (count, rows.shape[1]))
        self.asked.append((particles, rows, length))
        if self.told is None:
            nowhere = jnp.zeros((length, count), bool)
            losses, ended = nowhere.astype(jnp.float32), nowhere
        else:
            losses, ended = (part[:, before : before + count] for part in self.told)

        def record(carry: Any, row: Any) -> Any:
            clock, running = carry
            loss, ended = row
            clock, recorded = record_step(
                clock,
                loss,
                ended,
                running,
                next_limit=self.horizon or NO_LIMIT,
                diverged_loss=self.diverged_loss,
            )
            return (clock, running & ~recorded.ended), recorded

        start = particles.clock, jnp.ones(count, bool)
        (clock, _), segment = lax.scan(record, start, (losses, ended))
        loss = running_loss(particles.loss, segment)
        return Particles(particles.state, clock, loss), segment

"""A rollout whose rewards have a constant subtracted that changes between updates."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.envs.rollout.base import Particles, Rollout, Thetas
from pes_rl.envs.rollout.episodes import Array, Segment
from pes_rl.envs.rollout.observations import ObservationMoments


@dataclass(frozen=True)
class ShiftedRollout:
    """Another rollout, with `shift` subtracted from every reward of its segments.

    Its segments say so (`Segment.reward_shift`), while its particles keep the losses of
    their episodes without a shift. So a report counts true returns, also of an episode
    that ran under several shifts. A step at which a simulation diverges has its
    `diverged_loss` alone, as with a constant shift.

    Attributes:
        rollout: Without a shift of its own.
        shift: Constant of this update; the setting `reward_shift`, scheduled.
            # shape=(), dtype=float32
    """

    rollout: Rollout
    shift: jax.Array

    @property
    def horizon(self) -> int | None:
        return self.rollout.horizon

    @property
    def on_device(self) -> bool:
        return self.rollout.on_device

    @property
    def can_copy(self) -> bool:
        return self.rollout.can_copy

    @property
    def can_differentiate(self) -> bool:
        return self.rollout.can_differentiate

    def differentiable(self) -> "ShiftedRollout":
        return replace(self, rollout=self.rollout.differentiable())

    def normalized(self, moments: ObservationMoments) -> "ShiftedRollout":
        return replace(self, rollout=self.rollout.normalized(moments))

    def reset(
        self,
        key: jax.Array,
        num_pairs: int,
        *,
        members: int = 2,
        stagger: bool = False,
    ) -> Particles:
        return self.rollout.reset(key, num_pairs, members=members, stagger=stagger)

    def observations(self, particles: Particles) -> Array:
        return self.rollout.observations(particles)

    def take(self, particles: Particles, indices: Any) -> Particles:
        return self.rollout.take(particles, indices)

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        after, segment = self.rollout.unroll(
            particles, thetas, length, single_episode=single_episode
        )
        return after, _shift(segment, self.shift)


@jax.jit
def _shift(segment: Segment, shift: jax.Array) -> Segment:
    counted = jnp.asarray(segment.simulated) & ~jnp.asarray(segment.diverged)
    loss = segment.loss + jnp.where(counted, shift, 0.0)
    return replace(segment, loss=loss, reward_shift=shift)

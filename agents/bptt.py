"""Backpropagation through time, through whole episodes (Werbos 1990).

    repeat:
        L_i = loss of one whole episode under theta, for each particle i
        gradient = 1 / N sum_i dL_i / dtheta

Nothing is truncated: the derivative reaches back to the first step of the episode.
"""

from dataclasses import dataclass

import jax

from pes_rl.agents.core.derivatives import (
    check_differentiable,
    check_num_particles,
    check_reverse_mode,
    unroll_gradient,
)
from pes_rl.agents.core.estimator import check_whole_episodes
from pes_rl.agents.core.report import Report, describe
from pes_rl.envs.rollout.base import Particles, Rollout


@dataclass(frozen=True)
class BPTT:
    """BPTT: reverse-mode gradients of whole episodes.

    Unbiased for the loss itself where theta does not decide when episodes end. Memory
    grows with T.

    Attributes:
        num_particles: Particles N, all with the mean theta.

    Example (an update is made as in the example of `PES`):
        >>> bptt = BPTT(num_particles=1)
        >>> bptt.max_steps(horizon=100)  # environment steps of an update
        100
    """

    num_particles: int

    def __post_init__(self) -> None:
        check_num_particles(self.num_particles)

    def max_steps(self, horizon: int | None) -> int:
        assert horizon is not None  # init refuses a rollout without one
        return self.num_particles * horizon

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        check_differentiable(rollout, "bptt")
        check_whole_episodes("bptt", rollout.horizon)
        particles = rollout.reset(key, self.num_particles, members=1)
        check_reverse_mode(rollout, particles, theta, "bptt")
        return particles

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        del key  # Nothing is drawn.
        assert rollout.horizon is not None
        gradients, particles, segment = unroll_gradient(
            rollout, state, theta, rollout.horizon, single_episode=True
        )
        contributions = gradients / self.num_particles
        report = describe(state, particles, segment, contributions)
        return contributions.sum(0), particles, report

"""Truncated backpropagation through time (Werbos 1990; Williams and Peng 1990).

    for each particle i: s_i = first state
    repeat:
        s_i, L_i = unroll(s_i, theta, K steps)
        gradient = 1 / N sum_i dL_i / dtheta, with the s_i that the unroll began in
                   held constant

The estimate is biased: it contains the effect of theta on the running unroll's states,
and not its effect on the states before.
"""

from dataclasses import dataclass

import jax

from pes_rl.agents.core.derivatives import (
    MeanUnrolls,
    check_reverse_mode,
    unroll_gradient,
)
from pes_rl.agents.core.report import Report, describe
from pes_rl.envs.rollout.base import Particles, Rollout


@dataclass(frozen=True)
class TBPTT(MeanUnrolls):
    """TBPTT: reverse-mode gradients of partial unrolls, one after another.

    Where an episode ends inside an unroll, the next begins in it, and the gradient
    stops there: a first state does not depend on theta. Memory grows with K.

    Example (an update is made as in the example of `PES`):
        >>> tbptt = TBPTT(num_particles=1, truncation_length=20)
        >>> tbptt.max_steps(horizon=100)  # environment steps of an update
        20
    """

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        particles = self.first_particles(rollout, key, "tbptt")
        check_reverse_mode(rollout, particles, theta, "tbptt")
        return particles

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        del key  # Nothing is drawn.
        gradients, particles, segment = unroll_gradient(
            rollout, state, theta, self.truncation_length
        )
        contributions = gradients / self.num_particles
        report = describe(state, particles, segment, contributions)
        return contributions.sum(0), particles, report

"""Real-time recurrent learning (Williams and Zipser 1989), by partial unrolls.

    for each particle i: s_i = first state, J_i = 0
    repeat:
        s'_i, L_i = unroll(s_i, theta, K steps)
        gradient = 1 / N sum_i (dL_i/ds_i J_i + dL_i/dtheta)
        J_i = ds'_i/ds_i J_i + ds'_i/dtheta
        s_i = s'_i

J_i, the derivative of the particle's state by the theta of all steps of its episode, is
carried forward, so the gradient is not truncated. K = 1 is the paper's algorithm; with
a larger K theta is updated less often, and nothing else changes.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.derivatives import (
    MeanUnrolls,
    drop_diverged,
    split_floats,
)
from pes_rl.agents.core.report import Report, describe
from pes_rl.envs.rollout.base import Particles, Rollout


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RTRLState:
    """State of RTRL: particles and the derivatives of their states by theta.

    Attributes:
        particles: N particles.
        sensitivity: Derivatives J by each parameter, one array for each leaf of the
            state that has derivatives. # shape=(D, N, ...)
    """

    particles: Particles
    sensitivity: list[jax.Array]


@dataclass(frozen=True)
class RTRL(MeanUnrolls):
    """RTRL: exact gradients from partial unrolls, by forward mode.

    Unbiased for the loss itself where theta does not decide when episodes end. It costs
    D forward derivatives, and memory for D states a particle. While theta changes, J
    holds derivatives by older thetas, as PES's accumulator holds their perturbations.
    Where an episode ends inside an unroll, the next begins in it, with J = 0.

    Example (an update is made as in the example of `PES`):
        >>> rtrl = RTRL(num_particles=1, truncation_length=20)
        >>> rtrl.max_steps(horizon=100)  # environment steps of an update
        20
    """

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> RTRLState:
        particles = self.first_particles(rollout, key, "rtrl")
        floats, _ = split_floats(particles.state)
        zeros = [jnp.zeros((theta.size, *leaf.shape), leaf.dtype) for leaf in floats]
        return RTRLState(particles, zeros)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: RTRLState, key: jax.Array
    ) -> tuple[jax.Array, RTRLState, Report]:
        del key  # Nothing is drawn.
        floats, join = split_floats(state.particles.state)
        shape = (self.num_particles, theta.size)

        def unroll(thetas: jax.Array, floats: list[jax.Array]) -> Any:
            start = replace(state.particles, state=join(floats))
            after, segment = rollout.unroll(start, thetas, self.truncation_length)
            outcome = split_floats(after.state)[0], segment.loss.sum(0)
            return outcome, (after, segment)

        def push(direction: jax.Array, sensitivity: list[jax.Array]) -> Any:
            """Derivatives of states and losses along one parameter."""
            _, along, after = jax.jvp(
                unroll,
                (jnp.broadcast_to(theta, shape), floats),
                (jnp.broadcast_to(direction, shape), sensitivity),
                has_aux=True,
            )
            return along, after

        (sensitivity, slopes), (particles, segment) = jax.vmap(
            push, out_axes=(0, None)
        )(jnp.eye(theta.size), state.sensitivity)
        contributions = drop_diverged(slopes.T, segment) / self.num_particles
        report = describe(state.particles, particles, segment, contributions)
        return contributions.sum(0), RTRLState(particles, sensitivity), report

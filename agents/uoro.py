"""Unbiased online recurrent optimisation (Tallec and Ollivier, ICLR 2018, Algorithm 1).

    for each particle i: s_i = first state, u_i = 0 (a state), v_i = 0 (a theta)
    repeat:
        s'_i, L_i = unroll(s_i, theta, K steps)
        gradient = 1 / N sum_i ((dL_i/ds_i u_i) v_i + dL_i/dtheta)
        draw signs n_i, +1 or -1 for each coordinate of the state
        d_i = n_i ds'_i/dtheta,  u'_i = ds'_i/ds_i u_i
        r0 = sqrt(|v_i| / |u'_i|),  r1 = sqrt(|d_i| / |n_i|)
        u_i = r0 u'_i + r1 n_i,  v_i = v_i / r0 + d_i / r1
        s_i = s'_i

The product u_i v_i has RTRL's J_i as its mean: signs of different coordinates are
independent, so all cross terms vanish in it. r0 and r1 balance the norms, which changes
the variance alone. (arXiv 1702.05043.)
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.derivatives import (
    MeanUnrolls,
    check_reverse_mode,
    drop_diverged,
    split_floats,
)
from pes_rl.agents.core.report import Report, describe
from pes_rl.envs.rollout.base import Particles, Rollout

EPSILON = 1e-7
"""Added to norms so that r0 and r1 are finite, as in the published code for PES."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class UOROState:
    """State of UORO: particles, and a rank-one estimate of RTRL's sensitivity.

    Attributes:
        particles: N particles.
        state_vector: u, one array for each leaf of the state that has derivatives.
            # shape=(N, ...)
        theta_vector: v. # shape=(N, D), dtype=float32
    """

    particles: Particles
    state_vector: list[jax.Array]
    theta_vector: jax.Array


@dataclass(frozen=True)
class UORO(MeanUnrolls):
    """UORO: unbiased gradients from partial unrolls, with a sensitivity of rank one.

    Unbiased for the loss itself where theta does not decide when episodes end. It costs
    the time and memory of backpropagation through one unroll, and has more noise than
    RTRL.

    Differences from the paper: a partial unroll takes the place of a step of the
    system, and K = 1 is the paper's. The gradient by the running unroll's theta is
    exact, so a larger K has less noise. Derivatives along u are exact, not finite
    differences. Where an episode ends inside an unroll, the next begins in it, with
    u = 0 and v = 0.

    Example (an update is made as in the example of `PES`):
        >>> uoro = UORO(num_particles=1, truncation_length=20)
        >>> uoro.max_steps(horizon=100)  # environment steps of an update
        20
    """

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> UOROState:
        particles = self.first_particles(rollout, key, "uoro")
        check_reverse_mode(rollout, particles, theta, "uoro")
        floats, _ = split_floats(particles.state)
        return UOROState(
            particles,
            [jnp.zeros_like(leaf) for leaf in floats],
            jnp.zeros((self.num_particles, theta.size)),
        )

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: UOROState, key: jax.Array
    ) -> tuple[jax.Array, UOROState, Report]:
        floats, join = split_floats(state.particles.state)
        thetas = jnp.broadcast_to(theta, (self.num_particles, theta.size))

        def unroll(thetas: jax.Array, floats: list[jax.Array]) -> Any:
            start = replace(state.particles, state=join(floats))
            after, segment = rollout.differentiable().unroll(
                start, thetas, self.truncation_length
            )
            outcome = split_floats(after.state)[0], segment.loss.sum(0)
            return outcome, (after, segment)

        (_, loss), push, (particles, segment) = jax.linearize(
            unroll, thetas, floats, has_aux=True
        )
        pull = jax.linear_transpose(push, thetas, floats)
        signs = random_signs(key, floats)
        pushed, slope = push(jnp.zeros_like(thetas), state.state_vector)
        direct, _ = pull(
            ([jnp.zeros_like(leaf) for leaf in floats], jnp.ones_like(loss))
        )
        pulled, _ = pull((signs, jnp.zeros_like(loss)))
        pulled = drop_diverged(pulled, segment)

        gradients = slope[:, None] * state.theta_vector + direct
        ended = segment.ended.any(0)[:, None]
        state_vector, theta_vector = balanced_sum(
            pushed, jnp.where(ended, 0.0, state.theta_vector), signs, pulled
        )
        contributions = drop_diverged(gradients, segment) / self.num_particles
        report = describe(state.particles, particles, segment, contributions)
        after = UOROState(particles, state_vector, theta_vector)
        return contributions.sum(0), after, report


def random_signs(key: jax.Array, leaves: list[jax.Array]) -> list[jax.Array]:
    """+1 or -1 with equal probability, as arrays like the given ones."""
    keys = jax.random.split(key, len(leaves))
    return [
        jax.random.rademacher(own, leaf.shape, leaf.dtype)
        for own, leaf in zip(keys, leaves, strict=True)
    ]


def balanced_sum(
    state_vector: list[jax.Array],
    theta_vector: jax.Array,
    signs: list[jax.Array],
    pulled: jax.Array,
) -> tuple[list[jax.Array], jax.Array]:
    """(u, v) of each particle, with E[u v] = u' v' + E[n d].

    u = r0 u' + r1 n and v = v' / r0 + d / r1. Their product is u' v' + n d plus the
    terms u' d and n v', which are odd in the signs n and so have mean 0.

    Args:
        state_vector: u'. # shape=(N, ...)
        theta_vector: v'. # shape=(N, D)
        signs: n, independent. # shape=(N, ...)
        pulled: d, linear in n. # shape=(N, D)
    """
    r0 = jnp.sqrt(_norms([theta_vector]) / (_norms(state_vector) + EPSILON)) + EPSILON
    r1 = jnp.sqrt(_norms([pulled]) / (_norms(signs) + EPSILON)) + EPSILON
    state = [
        _times(r0, own) + _times(r1, sign)
        for own, sign in zip(state_vector, signs, strict=True)
    ]
    return state, theta_vector / r0[:, None] + pulled / r1[:, None]


def _norms(leaves: list[jax.Array]) -> jax.Array:
    """Euclidean norm of each particle's part of all leaves; shape (N,)."""
    squares = [jnp.square(leaf).reshape(leaf.shape[0], -1).sum(1) for leaf in leaves]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def _times(factors: jax.Array, leaf: jax.Array) -> jax.Array:
    """Each particle's factor times its part of the leaf."""
    return factors.reshape(-1, *(1,) * (leaf.ndim - 1)) * leaf

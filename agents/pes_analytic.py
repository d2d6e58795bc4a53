"""PES with an analytic gradient as control variate (Vicol et al. 2021, "PES+Analytic").

    for each particle i: s_i = first state, xi_i = 0
    for each pair: a mean state m = first state
    repeat:
        m, p = unroll(m, theta, K steps), p the gradient of its loss, m held constant
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        s_i, L_i = unroll(s_i, theta + e_i, K steps)
        gradient = mean p + 1 / (N sigma^2) sum_i xi_i (L_i - e_i . p_i)
        xi_i = xi_i + e_i

p_i is the p of the particle's pair. PES weights L_i by xi_i + e_i. Here p replaces the
term with e_i, which estimates the gradient by the running unroll's theta. In the term
with xi_i, which estimates the gradient by earlier unrolls' thetas, e_i . p_i is a
control variate: xi_i and e_i are independent, so its mean is 0.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.accumulators import accumulate
from pes_rl.agents.core.derivatives import (
    check_differentiable,
    check_reverse_mode,
    unroll_gradient,
)
from pes_rl.agents.core.estimator import (
    PartialUnrollEstimator,
    check_truncation_length,
)
from pes_rl.agents.core.perturbations import antithetic_perturbations
from pes_rl.agents.core.report import Report, describe
from pes_rl.agents.pes import PESState
from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Segment


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PESAnalyticState:
    """State of PES+Analytic: that of PES, and particles under the mean theta.

    Attributes:
        pes: State of PES.
        mean: One particle for each pair, with the pair's randomness. # P particles
    """

    pes: PESState
    mean: Particles


@dataclass(frozen=True)
class PESAnalytic(PartialUnrollEstimator):
    """PES whose gradient by the running unroll's theta comes from backpropagation.

    The control variate has mean 0 for any p. Where an unroll's loss is linear in its
    own perturbation and depends on nothing before, the estimate is the gradient without
    noise.

    The bias comes from p, which replaces the mean of the particles' own gradients. The
    two are equal where the loss is linear or quadratic in all perturbations of the
    episode and the pair's members and its mean particle end their episodes together.
    Where the ends of episodes do not depend on theta, the bias is of order sigma^2 for
    smooth losses. Where they do depend on theta, it does not vanish with sigma: p is a
    derivative and leaves out the effect of theta on when an episode ends.

    Differences from the paper: there a single mean state serves all particles, which
    have the same episodes. Here pairs have their own randomness and phase, so each has
    a mean particle, and an update simulates 3 P K steps, all counted. A particle whose
    episode ends waits for the next unroll, as in PES. The mean particle plays whole
    episodes of its own, and does not follow the phase of members that ended apart.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        sigma: Standard deviation of the perturbations.
        stagger: Spread the particles over the episode, so that every update sees all
            phases of it; needs a finite horizon.

    Example (an update is made as in the example of `PES`):
        >>> pes_analytic = PESAnalytic(num_pairs=4, truncation_length=20, sigma=0.1)
        >>> pes_analytic.max_steps(horizon=100)  # environment steps of an update
        240
    """

    stagger: bool = False

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return 3 * self.num_pairs * self.truncation_length

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array
    ) -> PESAnalyticState:
        check_differentiable(rollout, "pes-analytic")
        check_truncation_length(self.truncation_length, rollout.horizon)
        particles = rollout.reset(key, self.num_pairs, stagger=self.stagger)
        accumulator = jnp.zeros((2 * self.num_pairs, theta.size))
        # The same key, so each mean particle has the first states of its pair.
        mean = rollout.reset(key, self.num_pairs, members=1, stagger=self.stagger)
        check_reverse_mode(rollout, mean, theta, "pes-analytic")
        pes = PESState(particles, accumulator, jnp.float32(self.sigma))
        return PESAnalyticState(pes, mean)

    def estimate(
        self,
        rollout: Rollout,
        theta: jax.Array,
        state: PESAnalyticState,
        key: jax.Array,
    ) -> tuple[jax.Array, PESAnalyticState, Report]:
        analytic, mean, mean_segment = unroll_gradient(
            rollout, state.mean, theta, self.truncation_length, single_episode=True
        )
        perturbation = antithetic_perturbations(
            key, self.num_pairs, theta.size, self.sigma
        )
        particles, segment = rollout.unroll(
            state.pes.particles,
            theta[None] + perturbation,
            self.truncation_length,
            single_episode=True,
        )
        before = state.pes.accumulator * (self.sigma / state.pes.sigma) ** 2
        contributions = pes_analytic_gradient(
            segment, before, perturbation, jnp.repeat(analytic, 2, axis=0), self.sigma
        )
        accumulator = accumulate(segment, before, perturbation)
        report = describe(
            state.pes.particles, particles, segment, contributions, accumulator
        )
        mean_steps = mean_segment.simulated.sum(dtype=jnp.int32)
        report = replace(report, env_steps=report.env_steps + mean_steps)
        pes = PESState(particles, accumulator, jnp.float32(self.sigma))
        return contributions.sum(0), PESAnalyticState(pes, mean), report


@jax.jit
def pes_analytic_gradient(
    segment: Segment,
    accumulator: jax.Array,
    perturbation: jax.Array,
    analytic: jax.Array,
    sigma: Any,
) -> jax.Array:
    """Each particle's part: (p_i + xi_i (L_i - e_i . p_i) / sigma^2) / N.

    Args:
        segment: An unroll of K steps by N particles, of a single episode each.
        accumulator: xi before the unroll. # shape=(N, D)
        perturbation: e of this unroll. # shape=(N, D)
        analytic: p of each particle. # shape=(N, D)
        sigma: Standard deviation of the perturbations.

    Returns:
        The parts, whose sum is the gradient. # shape=(N, D)

    Example:
        >>> loss, no = jnp.array([[5.0, 2.0]]), jnp.zeros((1, 2), bool)
        >>> segment = Segment(loss, ended=no, diverged=no, simulated=~no)
        >>> xi, e = jnp.array([[0.25], [-0.25]]), jnp.array([[0.5], [-0.5]])
        >>> parts = pes_analytic_gradient(segment, xi, e, jnp.full((2, 1), 2.0), 0.5)
        >>> parts.sum(0).tolist()
        [2.5]
    """
    explained = jnp.sum(perturbation * analytic, axis=1)
    unexplained = segment.loss.sum(0) - explained
    parts = analytic + accumulator * unexplained[:, None] / sigma**2
    return parts / perturbation.shape[0]

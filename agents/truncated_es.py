"""Truncated evolution strategies (Vicol, Metz, Sohl-Dickstein, ICML 2021, Algorithm 1).

    s = first state
    repeat:
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        _, L_i = unroll(s, theta + e_i, K steps)          for each particle i
        s, _ = unroll(s, theta, K steps)
        gradient = 1 / (N sigma^2) sum_i e_i L_i

The estimate is biased: it sees what theta does to the next K steps and nothing of what
it does to the steps after them.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.chunks import in_chunks, pairs_at_once
from pes_rl.agents.core.estimator import (
    Report,
    check_population,
    check_truncation_length,
    describe,
)
from pes_rl.agents.core.perturbations import draw_antithetic, perturb
from pes_rl.agents.es import es_gradient
from pes_rl.envs.rollout.base import Particles, Rollout


@dataclass(frozen=True)
class TruncatedES:
    """ES on partial unrolls from the state that the mean parameters reached.

    Three procedures go by this name in the field, and they differ:

    1. One shared state, advanced by the mean theta; the particles' own end states are
       dropped. This is the paper's Algorithm 1, and what runs here. (The paper's code
       for control keeps one such state a pair, at K more steps each.)
    2. A state a particle, advanced by that particle's own perturbed theta, and no
       accumulator. It is PES with the accumulator left out; its states spread.
    3. A state a pair; both members start from it and the positive member's end state is
       kept (Google's learned_optimization).

    All three are biased. The mean unroll of 1. costs K steps an update besides the
    particles' N K, and is counted. It happens before the update, on the same episode
    randomness as the particles. Where an episode ends inside an unroll, the losses end
    with it, and the next unroll begins a new one.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        sigma: Standard deviation of the perturbations.
        pairs_per_chunk: Pairs whose perturbations are held at once; None takes all, or
            as many as fit. See `chunks`.
    """

    num_pairs: int
    truncation_length: int
    sigma: Any
    pairs_per_chunk: int | None = None

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        check_truncation_length(self.truncation_length, None)

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return (2 * self.num_pairs + 1) * self.truncation_length

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Particles:
        """The shared state: a single particle, run by the mean parameters."""
        check_truncation_length(self.truncation_length, rollout.horizon)
        if not rollout.can_copy:
            raise ValueError(
                "truncated-es starts every particle from a copy of one state, and this "
                "environment's state cannot be copied; use pes or es"
            )
        self._pairs_at_once(rollout, theta)
        return rollout.reset(key, 1, members=1)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Particles, key: jax.Array
    ) -> tuple[jax.Array, Particles, Report]:
        gradient, _, report = in_chunks(
            partial(self._estimate_pairs, rollout, theta, key, state),
            (),
            rollout,
            self.num_pairs,
            self._pairs_at_once(rollout, theta),
        )
        mean, mean_segment = rollout.unroll(
            state, theta[None], self.truncation_length, single_episode=True
        )
        mean_steps = mean_segment.simulated.sum(dtype=jnp.int32)
        report = replace(report, env_steps=report.env_steps + mean_steps)
        return gradient, mean, report

    def _estimate_pairs(
        self,
        rollout: Rollout,
        theta: jax.Array,
        key: jax.Array,
        state: Particles,
        first: Any,
        nothing: Any,
    ) -> tuple[jax.Array, Any, Report]:
        count = self._pairs_at_once(rollout, theta)
        perturbation, thetas = perturb(
            rollout,
            theta,
            count,
            draw_antithetic,
            key,
            self.num_pairs,
            theta.size,
            self.sigma,
            first=first,
        )
        start = rollout.take(state, jnp.zeros(2 * count, jnp.int32))
        end, segment = rollout.unroll(
            start, thetas, self.truncation_length, single_episode=True
        )
        contributions = es_gradient(segment.loss.sum(0), perturbation, self.sigma)
        return contributions, nothing, describe(start, end, segment, contributions)

    def _pairs_at_once(self, rollout: Rollout, theta: jax.Array) -> int:
        return pairs_at_once(rollout, self.pairs_per_chunk, self.num_pairs, theta.size)

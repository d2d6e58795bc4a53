"""PES and truncated ES with critics, from the same unrolls: streams of `signal`.

With b a critic, fixed and fitted on other rollouts, and s_u the state in which unroll u
of an episode begins, an unroll's loss L_u is replaced by

    delta_u = L_u + b(s_{u+1}) - b(s_u),   b = 0 where the episode has ended

The value at an unroll's start is that of the unroll before, so the sum telescopes. In
truncated ES all particles start from one state, and b(s_u) makes no difference.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from critic_values import Observe, observation_of

from pes_rl.agents import es_gradient
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.analysis.signal_pes import PESStream, decayed_parts
from pes_rl.analysis.signal_stream import Setting, State, Update, update_of_pairs
from pes_rl.analysis.signal_truncated_es import TruncatedESStream, update_of_chains
from pes_rl.envs import Rollout, Segment
from pes_rl.envs.rollout.episodes import split_loss

NO_CRITIC = "none"


@dataclass(frozen=True)
class CriticSetting(Setting):
    """An estimator with a critic.

    Attributes:
        critic: Its name; `NO_CRITIC` for the estimators that exist.
    """

    critic: str = NO_CRITIC

    @property
    def is_unbiased(self) -> bool:
        """Whether its mean counts as the gradient: never that of one with a critic."""
        return self.critic == NO_CRITIC and super().is_unbiased

    def __str__(self) -> str:
        return f"{super().__str__()} critic {self.critic}"


@dataclass(frozen=True, kw_only=True)
class CriticStream(PESStream):
    """PES with each critic and each trace decay.

    Attributes:
        critics: Names of B critics.
        values: b of all of them, of observations [N, O] and elapsed steps [N].
            # shape=(B, N)
        observe: The particles' observations.
    """

    critics: tuple[str, ...]
    values: Callable[[Any, Any], jax.Array]
    observe: Observe = observation_of

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(
            CriticSetting("pes", self.length, decay, critic=critic)
            for critic in self.critics
            for decay in self.trace_decays
        )

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        before, (accumulators, critics) = state
        chains = accumulators.shape[1] // 2
        e, thetas = perturb_antithetic(rollout, theta, key, chains, self.sigma)
        after, segment = rollout.unroll(
            before, thetas, self.length, single_episode=True
        )
        start, end = (
            self.values(self.observe(p), p.clock.elapsed) for p in (before, after)
        )
        decays = jnp.array(self.trace_decays, jnp.float32)
        delta = _with_values(segment, end) - start
        parts, accumulators = decayed_parts(
            segment, accumulators, decays, e, self.sigma, delta
        )
        return update_of_pairs(parts, segment), (after, (accumulators, critics))


@dataclass(frozen=True)
class TruncatedCriticStream(TruncatedESStream):
    """Truncated ES with each critic.

    All fields of its updates have a row for each estimator, and so `measure` counts
    every step as often as there are critics.

    Attributes:
        critics, values, observe: As in `CriticStream`.
    """

    critics: tuple[str, ...]
    values: Callable[[Any, Any], jax.Array]
    observe: Observe = observation_of

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(
            CriticSetting("truncated-es", self.length, critic=critic)
            for critic in self.critics
        )

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        mean, _ = state
        chains = len(mean.clock.episode)
        e, thetas = perturb_antithetic(rollout, theta, key, 2 * chains, self.sigma)
        start = rollout.take(mean, jnp.repeat(jnp.arange(chains), 4))
        after, segment = rollout.unroll(start, thetas, self.length, single_episode=True)
        mean, mean_segment = rollout.unroll(
            mean, theta[None], self.length, single_episode=True
        )
        end = self.values(self.observe(after), after.clock.elapsed)
        update = _of_critics(segment, mean_segment, e, self.sigma, end)
        return update, (mean, None)


@jax.jit
def _of_critics(
    segment: Segment,
    mean_segment: Segment,
    perturbation: jax.Array,
    sigma: Any,
    end: jax.Array,
) -> Update:
    """The update of truncated ES with each critic; all fields have B rows."""

    def of_one(loss: jax.Array) -> Update:
        parts = es_gradient(loss, perturbation, sigma)
        return update_of_chains(parts, segment, mean_segment)

    made = jax.vmap(of_one)(_with_values(segment, end))
    return replace(made, estimates=made.estimates[:, 0])


def _with_values(segment: Segment, end: jax.Array) -> jax.Array:
    """Losses and the values of the states that follow, 0 after an end. [B, N]."""
    loss, _ = split_loss(segment)
    ended = jnp.asarray(segment.ended).any(0)
    return loss[None] + jnp.where(ended[None], 0.0, end)

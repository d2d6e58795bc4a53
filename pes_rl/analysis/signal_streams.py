"""Streams of perturbed unrolls at a fixed theta, each shared by several estimators.

A stream runs C independent *chains* and makes one update after another. In each update
it gives, for each of J estimators and each chain, an estimate of the gradient:

    PESStream          a chain is an antithetic pair with a new perturbation in each
                       unroll; PES with any trace decay is linear in its losses and
                       perturbations, so one stream serves all J of them, with critics
                       and without, which are fitted to all chains as they go on
    NRESStream         a chain is a pair with one perturbation an episode; with unrolls
                       as long as the longest episode it is full-episode ES
    TruncatedESStream  a chain is the mean theta's own episode, and two pairs in each
                       unroll that start from its state
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from pes_rl.agents import es_gradient, pes_gradient
from pes_rl.agents.core.critic import (
    Critic,
    critic_losses,
    critic_states,
    make_critic,
)
from pes_rl.agents.core.perturbations import perturb, perturb_antithetic
from pes_rl.agents.nres import episode_perturbations
from pes_rl.envs import Particles, Rollout, Segment
from pes_rl.envs.rollout.episodes import split_loss


@dataclass(frozen=True)
class Setting:
    """An estimator with its truncation length and trace decay.

    Attributes:
        agent: pes, nres, truncated-es or es.
        truncation_length: K; the longest episode's steps T for es.
        trace_decay: lambda of pes; None for the others.
        critic_discount: That of pes's critic; None without one.
    """

    agent: str
    truncation_length: int
    trace_decay: float | None = None
    critic_discount: float | None = None

    @property
    def is_unbiased(self) -> bool:
        """Whether its mean is the gradient of a smoothed loss, up to a factor.

        Not with a critic, whose fit goes on while it is measured.
        """
        if self.agent == "truncated-es" or self.critic_discount is not None:
            return False
        return self.trace_decay in (None, 1)

    def __str__(self) -> str:
        if self.agent == "es":
            return "es"
        text = f"{self.agent} K {self.truncation_length}"
        if self.trace_decay is not None:
            text += f" lambda {self.trace_decay:g}"
        if self.critic_discount is not None:
            text += f" critic {self.critic_discount:g}"
        return text


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Update:
    """One update of a stream of C chains.

    Attributes:
        estimates: Of each estimator by each chain. # shape=(J, C, D)
        pair_noise: Variance of the estimate by one pair, given the state that the pairs
            of a chain share; unbiased; 0 where a chain is one pair. # shape=(C,)
        pair_steps: Steps simulated by each pair, on average. # shape=(C,)
        shared_steps: Steps simulated for all pairs of the chain. # shape=(C,)
    """

    estimates: jax.Array
    pair_noise: jax.Array
    pair_steps: jax.Array
    shared_steps: jax.Array


State = tuple[Particles, Any]
"""The particles that live on, and what else the stream remembers."""


class Stream(Protocol):
    """A stream of updates; see the module."""

    shares_states: ClassVar[bool]
    """Whether the pairs of an update start from one state, and so depend on it."""

    @property
    def length(self) -> int:
        """Steps K of an unroll."""
        ...

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The J estimators."""
        ...

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array, chains: int
    ) -> State:
        """The state before the first update: all episodes at their first step."""
        ...

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        """One update, and the state after it."""
        ...


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
        parts, accumulators = _decayed_parts(
            segment, accumulators, decays, e, self.sigma, losses
        )
        return _of_pairs(parts, segment), (after, (accumulators, critics))

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


@dataclass(frozen=True)
class NRESStream:
    """NRES, or full-episode ES.

    Attributes:
        length: Steps K of an unroll.
        sigma: Standard deviation of the perturbations.
        agent: Its name: "nres", or "es" where K is the longest episode's steps.
    """

    length: int
    sigma: float
    agent: str = "nres"

    shares_states: ClassVar[bool] = False

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (Setting(self.agent, self.length),)

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array, chains: int
    ) -> State:
        del theta
        reset_key, key = jax.random.split(key)
        return rollout.reset(reset_key, chains), jax.random.key_data(key)

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        del key  # The state decides every perturbation.
        before, noise_key = state
        episode = before.clock.episode
        chains = len(episode) // 2
        sigma = jnp.full(len(episode), self.sigma, jnp.float32)
        e, thetas = perturb(
            rollout,
            theta,
            chains,
            episode_perturbations,
            sigma,
            noise_key,
            episode,
            theta.size,
            num_pairs=chains,
        )
        after, segment = rollout.unroll(
            before, thetas, self.length, single_episode=True
        )
        parts = es_gradient(segment.loss.sum(0), e, self.sigma)
        return _of_pairs(parts[None], segment), (after, noise_key)


@dataclass(frozen=True)
class TruncatedESStream:
    """Truncated ES, with two pairs from the state of each chain.

    Two are enough to tell the noise of the pairs, which falls as 1 / P, from that of
    the state, which all P pairs of an update share.

    Attributes:
        length: Steps K of an unroll.
        sigma: Standard deviation of the perturbations.
    """

    length: int
    sigma: float

    shares_states: ClassVar[bool] = True

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (Setting("truncated-es", self.length),)

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array, chains: int
    ) -> State:
        del theta
        return rollout.reset(key, chains, members=1), None

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        mean, _ = state
        chains = len(mean.clock.episode)
        e, thetas = perturb_antithetic(rollout, theta, key, 2 * chains, self.sigma)
        start = rollout.take(mean, jnp.repeat(jnp.arange(chains), 4))
        _, segment = rollout.unroll(start, thetas, self.length, single_episode=True)
        mean, mean_segment = rollout.unroll(
            mean, theta[None], self.length, single_episode=True
        )
        parts = es_gradient(segment.loss.sum(0), e, self.sigma)
        update = _of_chains(parts, segment, mean_segment)
        return update, (mean, None)


@jax.jit
def _decayed_parts(
    segment: Segment,
    accumulators: jax.Array,
    decays: jax.Array,
    perturbation: jax.Array,
    sigma: Any,
    losses: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`pes_gradient` for each of B losses and of L decays.

    Returns:
        (parts [B L, N, D], accumulators [L, N, D]).
    """
    by_decay = jax.vmap(pes_gradient, (None, 0, None, None, None))
    by_loss = jax.vmap(by_decay, (None, None, None, None, 0), out_axes=(0, None))
    decayed = decays[:, None, None] * accumulators
    parts, after = by_loss(segment, decayed, perturbation, sigma, losses)
    return parts.reshape(-1, *parts.shape[2:]), after


@jax.jit
def _of_pairs(parts: jax.Array, segment: Segment) -> Update:
    """The update where each pair is a chain, from its particles' parts [J, N, D].

    A part is divided by N for the mean over all pairs; one pair's own estimate is not.
    """
    size, particles, parameters = parts.shape
    chains = particles // 2
    pairs = chains * parts.reshape(size, chains, 2, parameters).sum(2)
    nothing = jnp.zeros(chains)
    return Update(pairs, nothing, _pair_steps(segment, chains), nothing)


@jax.jit
def _of_chains(parts: jax.Array, segment: Segment, mean_segment: Segment) -> Update:
    """The update where each chain has two pairs, from its particles' parts [N, D]."""
    particles, parameters = parts.shape
    chains = particles // 4
    pairs = 2 * chains * parts.reshape(chains, 2, 2, parameters).sum(2)
    return Update(
        estimates=pairs.mean(1)[None],
        pair_noise=jnp.sum((pairs[:, 0] - pairs[:, 1]) ** 2, axis=1) / 2,
        pair_steps=_pair_steps(segment, chains) / 2,
        shared_steps=mean_segment.simulated.sum(0).astype(jnp.float32),
    )


def _pair_steps(segment: Segment, chains: int) -> jax.Array:
    """Steps by the particles of each chain, [C]."""
    simulated = jnp.asarray(segment.simulated).sum(0).astype(jnp.float32)
    return simulated.reshape(chains, -1).sum(1)

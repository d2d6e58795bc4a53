"""Streams of perturbed unrolls at a fixed theta, each shared by several estimators.

A stream runs C independent *chains* and makes one update after another. In each update
it gives, for each of J estimators and each chain, an estimate of the gradient. There is
one for PES, one for NRES and full-episode ES, and one for truncated ES.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from pes_rl.envs import Particles, Rollout, Segment


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


@jax.jit
def update_of_pairs(parts: jax.Array, segment: Segment) -> Update:
    """The update where each pair is a chain, from its particles' parts [J, N, D].

    A part is divided by N for the mean over all pairs; one pair's own estimate is not.
    """
    size, particles, parameters = parts.shape
    chains = particles // 2
    pairs = chains * parts.reshape(size, chains, 2, parameters).sum(2)
    nothing = jnp.zeros(chains)
    return Update(pairs, nothing, pair_steps(segment, chains), nothing)


def pair_steps(segment: Segment, chains: int) -> jax.Array:
    """Steps by the particles of each chain, [C]."""
    simulated = jnp.asarray(segment.simulated).sum(0).astype(jnp.float32)
    return simulated.reshape(chains, -1).sum(1)

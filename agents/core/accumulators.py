"""Accumulators of PES: the sum of the perturbations of each particle's running episode.

With a trace decay lambda it is the sum of lambda^a e_a, a the unrolls since e_a's own.

For N particles they are N D floats. Either these are kept, or they are recomputed in
each update: every perturbation is decided by the key of its update, so the keys of the
at most ceil(T / K) updates of an episode, and each particle's age, are enough. This
costs as many draws as the oldest episode has unrolls.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pes_rl.agents.core.perturbations import antithetic_perturbations
from pes_rl.envs.rollout.episodes import Segment


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class UpdateHistory:
    """Keys and standard deviations of the last U updates, newest first.

    Attributes:
        key: Key data. # shape=(U, 2), dtype=uint32
        sigma: Standard deviation of the perturbations. # shape=(U,), dtype=float32
    """

    key: jax.Array
    sigma: jax.Array

    @classmethod
    def empty(cls, size: int) -> "UpdateHistory":
        """History with room for `size` updates, before the first."""
        return cls(jnp.zeros((size, 2), jnp.uint32), jnp.ones(size))

    def push(self, key: jax.Array, sigma: Any) -> "UpdateHistory":
        """History after one more update, without its oldest entry."""
        newest = jax.random.key_data(key), jnp.float32(sigma)
        return UpdateHistory(*map(_push, newest, (self.key, self.sigma)))


def _push(newest: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.concatenate([newest[None], others[:-1]])


@dataclass(frozen=True)
class Accumulators:
    """How accumulators are stored between updates: as they are, or as ages.

    Without a history the stored rows are the accumulators [N, D]. With one they are the
    numbers of unrolls that each running episode has had [N, 1], from which `load`
    recomputes the accumulators.

    Attributes:
        history: The updates before, or None.
        num_pairs: P.
        num_parameters: D.
        sigma: Standard deviation of this update, which loaded accumulators refer to.
        trace_decay: lambda, by which an update multiplies the accumulators before it.
    """

    history: UpdateHistory | None
    num_pairs: int
    num_parameters: int
    sigma: Any
    trace_decay: float

    def zeros(self) -> jax.Array:
        """Stored rows before the first update."""
        size = self.num_parameters if self.history is None else 1
        return jnp.zeros((2 * self.num_pairs, size))

    def decay(self, stored: jax.Array, sigma: jax.Array) -> jax.Array:
        """Stored rows that referred to `sigma`, decayed, for the sigma of this update.

        The score function of a perturbation e drawn with sigma is e / sigma^2, so e
        counts for another sigma' once it is scaled by (sigma' / sigma)^2.
        """
        if self.history is None:
            return stored * (self.trace_decay * (self.sigma / sigma) ** 2)
        return stored

    def load(self, stored: jax.Array, first: int | jax.Array) -> jax.Array:
        """Decayed accumulators of the pairs from `first` on. # shape=(2n, D)."""
        if self.history is None:
            return stored
        return recompute_accumulators(
            self.history,
            stored,
            self.num_pairs,
            self.num_parameters,
            self.sigma,
            first,
            self.trace_decay,
        )

    def store(
        self, stored: jax.Array, segment: Segment, accumulator: jax.Array
    ) -> jax.Array:
        """Rows to store after the unroll that gave this segment and accumulator."""
        if self.history is None:
            return accumulator
        return accumulate(segment, stored, jnp.ones_like(stored))

    def push(self, key: jax.Array) -> UpdateHistory | None:
        """The history after this update, which drew by `key`."""
        return None if self.history is None else self.history.push(key, self.sigma)


@partial(jax.jit, static_argnames=("num_pairs", "num_parameters", "trace_decay"))
def recompute_accumulators(
    history: UpdateHistory,
    age: jax.Array,
    num_pairs: int,
    num_parameters: int,
    sigma: Any,
    first: int | jax.Array,
    trace_decay: float = 1.0,
) -> jax.Array:
    """The accumulators of the particles of n consecutive pairs, from the updates' keys.

    Args:
        history: The updates before.
        age: Unrolls that each particle's running episode has had. # shape=(2n, 1)
        num_pairs: P.
        num_parameters: D.
        sigma: Standard deviation that the accumulators are to refer to.
        first: The first of these pairs.
        trace_decay: lambda; the newest update's perturbation has decayed once.

    Returns:
        # shape=(2n, D)
    """
    oldest = age.max().astype(jnp.int32)

    def add(step: jax.Array, total: jax.Array) -> jax.Array:
        u = oldest - 1 - step
        perturbation = antithetic_perturbations(
            jax.random.wrap_key_data(history.key[u]),
            num_pairs,
            num_parameters,
            history.sigma[u],
            first=first,
            count=age.shape[0] // 2,
        )
        scale = (sigma / history.sigma[u]) ** 2
        own = jnp.where(age > u.astype(age.dtype), scale * perturbation, 0.0)
        return trace_decay * (total + own)

    return lax.fori_loop(0, oldest, add, jnp.zeros((age.shape[0], num_parameters)))


def accumulate(
    segment: Segment, accumulator: jax.Array, perturbation: jax.Array
) -> jax.Array:
    """Each particle's accumulator after an unroll of K steps.

    With xi the decayed accumulator before and e the perturbation of the unroll, it is
    xi + e if the episode runs on, e if a new episode began in the unroll, and 0 if the
    next episode has not begun: the old one ended with the last step, or the particle
    waits.

    Args:
        segment: The unroll.
        accumulator: xi. # shape=(N, D)
        perturbation: e. # shape=(N, D)

    Returns:
        # shape=(N, D)
    """
    ended = segment.ended.any(0)[:, None]
    after = jnp.where(ended, perturbation, accumulator + perturbation)
    not_begun = jnp.logical_or(segment.ended[-1], ~segment.simulated[-1])
    return jnp.where(not_begun[:, None], 0.0, after)

"""Accumulators that are drawn again instead of kept.

PES's accumulator is the sum of the perturbations of the unrolls that an episode has
lived through, and each of these is decided by its update's key: for N particles it is
N D floats, or the keys of at most ceil(T / K) updates, and each particle's age. Drawing
them again costs so many draws an update.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pes_rl.agents.core.perturbations import antithetic_perturbations


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class UpdateHistory:
    """What the last U updates drew by, newest first.

    Attributes:
        key: Key data. # shape=(U, 2), dtype=uint32
        sigma: Standard deviation of the perturbations. # shape=(U,), dtype=float32
    """

    key: jax.Array
    sigma: jax.Array

    @classmethod
    def empty(cls, horizon: int, truncation_length: int) -> "UpdateHistory":
        """Of no updates yet, with room for all that an episode can live through."""
        size = -(-horizon // truncation_length)
        return cls(jnp.zeros((size, 2), jnp.uint32), jnp.ones(size))

    def after(self, key: jax.Array, sigma: Any) -> "UpdateHistory":
        """With the update that drew by this key and sigma."""
        newest = jax.random.key_data(key), jnp.float32(sigma)
        return UpdateHistory(*map(_push, newest, (self.key, self.sigma)))


def _push(newest: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.concatenate([newest[None], others[:-1]])


@partial(jax.jit, static_argnames=("num_pairs", "num_parameters"))
def recompute_accumulators(
    past: UpdateHistory,
    age: jax.Array,
    num_pairs: int,
    num_parameters: int,
    sigma: Any,
    first: int | jax.Array,
) -> jax.Array:
    """The accumulators of the particles of consecutive pairs.

    Args:
        past: The updates before.
        age: Unrolls that each particle's episode has lived through. # shape=(2n, 1)
        num_pairs: P.
        num_parameters: D.
        sigma: Standard deviation that the accumulators are to refer to, as those of
            `PESState` do.
        first: The first of these pairs.

    Returns:
        # shape=(2n, D)
    """
    oldest = age.max().astype(jnp.int32)

    def add(step: jax.Array, total: jax.Array) -> jax.Array:
        u = oldest - 1 - step
        perturbation = antithetic_perturbations(
            jax.random.wrap_key_data(past.key[u]),
            num_pairs,
            num_parameters,
            past.sigma[u],
            first=first,
            count=age.shape[0] // 2,
        )
        scale = (sigma / past.sigma[u]) ** 2
        return total + jnp.where(age > u.astype(age.dtype), scale * perturbation, 0.0)

    return lax.fori_loop(0, oldest, add, jnp.zeros((age.shape[0], num_parameters)))

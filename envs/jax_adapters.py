"""What the adapters of other packages' JAX environments share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@contextmanager
def default_promotion() -> Iterator[None]:
    """JAX's default promotion of dtypes and ranks, which other packages' code needs."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def with_dtypes_of(first: Any, state: Any) -> Any:
    """The state with the dtypes of `first`, none of them weak.

    A step can return a Python number where `reset` returned an array.

    Args:
        first: A tree of the same structure, of arrays or of their shapes and dtypes.
        state: A tree of arrays, random keys and Python numbers.
    """

    def convert(leaf: Any, like: Any) -> Any:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return leaf
        return jnp.asarray(leaf, like.dtype)

    return jax.tree.map(convert, state, first)


def as_vector(observation: Any) -> jax.Array:
    """An observation, an array or a tree of arrays, as one vector of float32, [O].

    The parts are in the order of JAX's trees: dictionaries by their sorted keys.
    """
    parts = [jnp.ravel(jnp.asarray(part)) for part in jax.tree.leaves(observation)]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts])


def vector_size(observation: Any) -> int:
    """Length O of `as_vector`, from the observation's shapes."""
    return sum(int(np.prod(part.shape)) for part in jax.tree.leaves(observation))

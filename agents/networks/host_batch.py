"""A JAX function of one particle, called with NumPy batches of particles."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

SMALLEST_BATCH = 8


class HostBatch:
    """One jitted, vmapped call for a batch of particles in NumPy.

    Batches are padded to a power of two, so that a batch that shrinks as episodes end
    is compiled for a few sizes and not for each; the padded size, and with it the
    rounding, depends on the batch alone. Parameters are moved to the device once for as
    long as they are the same read-only array, as they are during an unroll.

    Args:
        function: Maps (theta [D], *inputs) to a pytree of arrays.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call = jax.jit(jax.vmap(function))
        self._call_shared = jax.jit(_with_one_theta(function))
        self._thetas: np.ndarray | None = None
        self._moved: tuple[jax.Array, bool] | None = None

    # What overflows float32 is infinite, as in NumPy's own policies.
    @np.errstate(over="ignore", invalid="ignore")
    def __call__(self, thetas: np.ndarray, *inputs: Any) -> Any:
        """Results of each row, in NumPy; of the one particle if thetas is [D].

        Args:
            thetas: Parameters. # shape=(D,) or (N, D)
            inputs: Pytrees of arrays, with leading axis N unless thetas is [D].
        """
        if thetas.ndim == 1:
            one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], inputs)
            return jax.tree.map(lambda leaf: leaf[0], self(thetas[None], *one))
        count = len(thetas)
        size = max(SMALLEST_BATCH, 1 << (count - 1).bit_length())
        moved, are_shared = self._move(thetas, size)
        padded = jax.tree.map(lambda leaf: _padded(leaf, size), inputs)
        call = self._call_shared if are_shared else self._call
        results = call(moved, *padded)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], results)

    def _move(self, thetas: np.ndarray, size: int) -> tuple[jax.Array, bool]:
        """The parameters on the device, and whether they are one row for all."""
        if thetas is self._thetas and self._moved is not None:
            return self._moved
        are_shared = thetas.strides[0] == 0
        rows = thetas[0] if are_shared else _padded(thetas, size)
        moved = jax.device_put(rows.astype(np.float32)), are_shared
        if not thetas.flags.writeable:
            self._thetas, self._moved = thetas, moved
        return moved


def _with_one_theta(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of one theta [D] and of batches of the other inputs."""

    def of_batch(theta: jax.Array, *inputs: Any) -> Any:
        return jax.vmap(lambda *one: function(theta, *one))(*inputs)

    return of_batch


def _padded(leaf: Any, size: int) -> np.ndarray:
    """The rows and rows of zeros up to `size`; float64 becomes float32."""
    leaf = np.asarray(leaf)
    dtype = np.float32 if leaf.dtype == np.float64 else leaf.dtype
    rows = np.zeros((size, *leaf.shape[1:]), dtype)
    rows[: len(leaf)] = leaf
    return rows

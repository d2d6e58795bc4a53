"""Any part of JAX's arrays of random numbers, drawn at the speed of vector units.

JAX draws element n of an array by a Threefry of n, so any part can be drawn without
the rest. JAX's own functions draw from element 0, and take three to four times as long
on a CPU: there XLA's Threefry is a loop that passes over memory ten times, and XLA
computes the normals again for each use of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def normal_rows(
    key: jax.Array, size: int, first: int | jax.Array, count: int
) -> jax.Array:
    """Rows of `jax.random.normal(key, (any, size))`, from `first` on.

    The last bit may differ from JAX's.

    Returns:
        # shape=(count, size), dtype=float32

    Raises:
        ValueError: If count * size is 2^32 or more.
    """
    least = np.nextafter(np.float32(-1), np.float32(0))
    unit = _unit_rows(key, size, first, count)
    uniform = jnp.maximum(least, unit * (np.float32(1) - least) + least)
    return stored(lambda: np.float32(np.sqrt(2)) * lax.erf_inv(uniform))


def uniform_rows(
    key: jax.Array, low: Any, high: Any, size: int, first: int | jax.Array, count: int
) -> jax.Array:
    """Rows of `jax.random.uniform(key, (any, size), minval=low, maxval=high)`.

    Other arguments, shape and errors are as in `normal_rows`.
    """
    unit = _unit_rows(key, size, first, count)
    return jnp.maximum(low, unit * (high - low) + low)


def stored(compute: Callable[[], jax.Array]) -> jax.Array:
    """`compute()`, kept by XLA as an array of its own in a compiled program.

    Otherwise XLA may fuse the computation of a value with its uses. That changes the
    value's last bits. On a CPU it also computes the value once for each use, and
    without vector units where the fused loop is long. `lax.optimization_barrier` does
    not prevent this on a CPU; a branch on a condition that XLA does not know does.
    """
    # Traced once instead of three times, and 3^n times where n of these are nested.
    traced = jax.jit(compute, inline=True)
    like = jax.eval_shape(traced)

    def branch() -> jax.Array:
        unknown = lax.optimization_barrier(jnp.array(True))
        return lax.cond(unknown, traced, lambda: jnp.zeros(like.shape, like.dtype))

    def barrier() -> jax.Array:
        return lax.optimization_barrier(traced())

    return lax.platform_dependent(cpu=branch, default=barrier)


def _unit_rows(
    key: jax.Array, size: int, first: int | jax.Array, count: int
) -> jax.Array:
    """Uniform numbers on [0, 1), multiples of 2^-23."""
    if count * size >= 2**32:
        raise ValueError(
            f"{count} rows of {size} random numbers at once are too many; "
            "draw fewer rows, with pairs_per_chunk for example"
        )
    high, low = _product(jnp.asarray(first).astype(jnp.uint32), size)
    place = low + jnp.arange(count * size, dtype=jnp.uint32)
    high = high + (place < low).astype(jnp.uint32)
    bits = stored(lambda: _threefry_bits(jax.random.key_data(key), high, place))
    one = np.float32(1).view(np.uint32)  # with 23 random bits, a float of [1, 2)
    unit = lax.bitcast_convert_type(bits >> np.uint32(9) | one, jnp.float32) - 1
    return unit.reshape(count, size)


def _threefry_bits(words: jax.Array, high: jax.Array, low: jax.Array) -> jax.Array:
    """The 32 random bits of JAX for a key's two words and a 64-bit element number.

    The exclusive or of the two words of Threefry-2x32 with 20 rounds (Salmon et al.
    2011, Parallel random numbers: as easy as 1, 2, 3, section 3.3).
    """
    schedule = words[0], words[1], words[0] ^ words[1] ^ np.uint32(0x1BD11BDA)
    x, y = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = y << np.uint32(rotation) | y >> np.uint32(32 - rotation)
            y = x ^ y
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x ^ y


def _product(factor: jax.Array, other: int) -> tuple[jax.Array, jax.Array]:
    """Upper and lower 32 bits of the products of 32-bit numbers."""
    half, low = np.uint32(16), np.uint32(0xFFFF)
    a, b = factor >> half, factor & low
    c, d = np.uint32(other >> 16), np.uint32(other & 0xFFFF)
    middle = a * d + (b * d >> half)
    rest = b * c + (middle & low)
    return a * c + (middle >> half) + (rest >> half), factor * np.uint32(other)

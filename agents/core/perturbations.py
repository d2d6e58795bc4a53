"""The perturbations of a population, each pair's decided by a key and its own index.

So whoever simulates some of the pairs draws theirs and no others, whatever is drawn
beside them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from pes_rl.agents.core.noise import normal_rows, stored
from pes_rl.envs.rollout.base import Rollout, Thetas

BLOCK_FLOATS = 2**18
"""Noise is drawn in blocks of so many floats, or of one row that has more."""

DrawRows = Callable[[Any, int], jax.Array]
"""(first row, number of rows n) -> the rows [n, D]."""


@partial(
    jax.jit,
    static_argnames=("num_pairs", "num_parameters", "orthogonal", "count", "blocks"),
)
def antithetic_perturbations(
    key: jax.Array,
    num_pairs: int,
    num_parameters: int,
    sigma: Any,
    *,
    orthogonal: bool = False,
    first: int | jax.Array = 0,
    count: int | None = None,
    blocks: bool = False,
) -> jax.Array:
    """Perturbations +sigma epsilon and -sigma epsilon, the members of a pair adjacent.

    Args:
        key: With a pair's index it decides the pair's.
        num_pairs: P.
        num_parameters: D.
        sigma: Standard deviation.
        orthogonal: Make the pairs' perturbations orthogonal; see `orthogonal_rows`.
        first: First of the pairs that are drawn.
        count: How many are drawn; None for all P.
        blocks: See `draw_in_blocks`.

    Returns:
        # shape=(2 * count, num_parameters), dtype=float32
    """
    count = num_pairs if count is None else count

    size = num_parameters
    # Orthogonal blocks are drawn whole, the last one too.
    num_rows = num_pairs + (-num_pairs % min(num_pairs, size) if orthogonal else 0)

    def draw(first: Any, count: int) -> jax.Array:
        rows = partial(normal_rows, key, size)
        return draw_in_blocks(rows, num_rows, size, first, count, blocks)

    if orthogonal:
        noise = draw_orthogonal(draw, num_pairs, size, first, count)
    else:
        noise = draw(first, count)
    perturbation = sigma * noise
    pairs = jnp.stack([perturbation, -perturbation], axis=1)
    return pairs.reshape(2 * count, size)


def draw_antithetic(
    *arguments: Any, rows: slice, first: int | jax.Array = 0, **options: Any
) -> jax.Array:
    """Rows, of whole pairs, of `antithetic_perturbations` from pair `first` on."""
    begin, end = rows.start // 2, rows.stop // 2
    return antithetic_perturbations(
        *arguments, first=first + begin, count=end - begin, **options
    )


def perturb(
    rollout: Rollout,
    theta: jax.Array,
    num_pairs: int,
    draw: Callable[..., jax.Array],
    /,
    *arguments: Any,
    **options: Any,
) -> tuple[jax.Array, Thetas]:
    """The perturbations of so many pairs, and theta under each.

    They are `draw(*arguments, rows=slice(0, N), **options)`. On a host rollout any
    other slice of whole pairs is drawn the same to the bit, so that a distant engine
    draws those that it simulates. `draw` is no jitted function itself, which is sent by
    value, and so would be compiled anew at each arrival.

    Returns:
        (perturbations [N, D], the particles' parameters).
    """
    options["blocks"] = not rollout.on_device
    perturbation = draw(*arguments, rows=slice(0, 2 * num_pairs), **options)
    recipe = Partial(_draw_thetas, theta, Partial(draw, *arguments, **options))
    return perturbation, Thetas(theta[None] + perturbation, recipe)


def _draw_thetas(
    theta: jax.Array, draw: Callable[..., jax.Array], *, rows: slice
) -> jax.Array:
    return theta[None] + draw(rows=rows)


def draw_in_blocks(
    draw: DrawRows,
    num_rows: int,
    size: int,
    first: int | jax.Array,
    count: int,
    blocks: bool,
) -> jax.Array:
    """Rows that, with `blocks`, are the same to the bit whatever others are drawn.

    XLA compiles the same arithmetic differently for other shapes, and the last bit of a
    logarithm with it. So everybody draws the whole blocks that their rows lie in, and
    all blocks have one shape. Devices, which would all draw all blocks, do without.

    Args:
        draw: Draws rows.
        num_rows: Rows of all there are.
        size: D.
        first: First of the rows that are wanted.
        count: How many are wanted.
        blocks: Whether to draw in blocks.

    Returns:
        # shape=(count, size)
    """
    if not blocks:
        return draw(first, count)
    block = min(num_rows, max(BLOCK_FLOATS // size, 1))
    needed, begin = _blocks(block, num_rows, first, count)

    def one(b: jax.Array) -> jax.Array:
        return stored(lambda: draw(b * block, block))

    if needed == 1:
        rows = one(begin)
    else:
        rows = lax.map(one, begin + jnp.arange(needed)).reshape(-1, size)
    if block == 1 or count == needed * block == num_rows:
        return rows
    return lax.dynamic_slice_in_dim(rows, first - begin * block, count)


def _blocks(
    block: int, num_rows: int, first: int | jax.Array, count: int
) -> tuple[int, jax.Array]:
    """(how many blocks hold any `count` rows, the first of those that hold these)."""
    num_blocks = -(-num_rows // block)
    needed = min(num_blocks, (count + block - 2) // block + 1)
    return needed, jnp.minimum(jnp.asarray(first) // block, num_blocks - needed)


def draw_orthogonal(
    draw: DrawRows,
    num_rows: int,
    size: int,
    first: int | jax.Array,
    count: int,
) -> jax.Array:
    """Rows of `orthogonal_rows` of all rows, by the blocks that they lie in.

    These are of min(rows, D) rows: up to D rows, one needs all of them.

    Returns:
        # shape=(count, size)
    """
    block = min(num_rows, size)
    needed, begin = _blocks(block, num_rows, first, count)
    rows = begin * block + jnp.arange(needed * block)
    noise = draw(begin * block, needed * block)
    noise = jnp.where(rows[:, None] < num_rows, noise, 0.0)
    orthogonal = orthogonal_rows(noise)
    return lax.dynamic_slice_in_dim(orthogonal, first - begin * block, count)


def orthogonal_rows(noise: jax.Array) -> jax.Array:
    """Rows of independent normal noise, made orthogonal in blocks of D, lengths kept.

    Each row loses its components along the rows of its block before it, and is scaled
    back to its length. The directions come from the rows' directions alone, which are
    independent of their lengths, and turning all rows turns them alike: so each row by
    itself is N(0, I) again, and whatever is an expectation over a single perturbation,
    as that of a gradient estimate is, keeps its value. What shrinks is the variance:
    for a linear loss and P <= D pairs from (D + 1) / P to (D + 2) / P - 1 times the
    squared gradient, so much where P is near D and little where it is far below.

    (Choromanski et al. 2018, Structured Evolution, arXiv 1804.02395, "Gaussian
    orthogonal" directions.)

    Args:
        noise: Independent unit normal. # shape=(P, D)

    Returns:
        The noise, of which rows 0 to D - 1, D to 2 D - 1 and so on are orthogonal
        among themselves. # shape=(P, D)
    """
    num_rows, size = noise.shape
    block = min(num_rows, size)
    whole = jnp.pad(noise, ((0, -num_rows % block), (0, 0)))
    columns = jnp.swapaxes(whole.reshape(-1, block, size), 1, 2)
    basis, triangle = jnp.linalg.qr(columns)
    # A decomposition is unique but for these signs; positive ones are Gram-Schmidt's.
    sign = jnp.sign(jnp.diagonal(triangle, axis1=1, axis2=2))
    scaled = basis * (sign * jnp.linalg.norm(columns, axis=1))[:, None]
    return jnp.swapaxes(scaled, 1, 2).reshape(-1, size)[:num_rows]

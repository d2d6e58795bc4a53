"""Perturbations of a population; each pair's is decided by a key and the pair's index.

So a process that simulates some of the pairs draws only theirs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from pes_rl.agents.core.random_normals import normal_rows, stored
from pes_rl.envs.rollout.base import Rollout, Thetas

BLOCK_FLOATS = 2**18
"""Floats in a block of noise; a longer row is a block of its own."""

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
        key: With a pair's index it decides the pair's perturbation.
        num_pairs: P.
        num_parameters: D.
        sigma: Standard deviation.
        orthogonal: Make the pairs' perturbations orthogonal; see `orthogonal_rows`.
        first: First of the pairs to draw.
        count: Number of pairs to draw; None for all P.
        blocks: See `draw_in_blocks`.

    Returns:
        # shape=(2 * count, num_parameters), dtype=float32

    Example:
        >>> e = antithetic_perturbations(jax.random.key(0), 2, 3, sigma=0.1)
        >>> e.shape, bool((e[0] == -e[1]).all())
        ((4, 3), True)
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
    """The given rows of `antithetic_perturbations`, counted from pair `first` on.

    The slice holds whole pairs.
    """
    begin, end = rows.start // 2, rows.stop // 2
    return antithetic_perturbations(
        *arguments, first=first + begin, count=end - begin, **options
    )


def perturb_antithetic(
    rollout: Rollout,
    theta: jax.Array,
    key: jax.Array,
    num_pairs: int,
    sigma: Any,
    *,
    orthogonal: bool = False,
    first: int | jax.Array = 0,
    count: int | None = None,
) -> tuple[jax.Array, Thetas]:
    """New antithetic perturbations of `count` pairs, and theta under each.

    Arguments as `antithetic_perturbations`; returns as `perturb`.
    """
    return perturb(
        rollout,
        theta,
        num_pairs if count is None else count,
        draw_antithetic,
        key,
        num_pairs,
        theta.size,
        sigma,
        orthogonal=orthogonal,
        first=first,
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
    """Perturbations of n pairs by a drawing function, and theta under each.

    The perturbations are `draw(*arguments, rows=slice(0, 2 * n), **options)`. On a host
    rollout any other slice of whole pairs is drawn identical to the bit, so that a
    remote worker can draw those that it simulates.

    Args:
        rollout: The rollout that the parameters are for.
        theta: Mean parameters. # shape=(D,)
        num_pairs: n.
        draw: Must be no jitted function itself: one is sent to workers by value, and
            would be compiled again with each message.
        arguments: Of `draw`.
        options: Of `draw`.

    Returns:
        (perturbations [2n, D], the particles' parameters).
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
    """Rows of noise that, with `blocks`, do not depend on which other rows are drawn.

    XLA compiles the same arithmetic differently for different shapes, which can change
    the last bit of a logarithm. So each process draws the whole blocks that contain its
    rows, and all blocks have one shape. Devices, each of which would draw all blocks,
    draw without blocks.

    Args:
        draw: Draws rows.
        num_rows: Number of all rows.
        size: D.
        first: First of the rows to return.
        count: Number of rows to return.
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
    """(number of blocks that suffice for any `count` rows, first block to draw)."""
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
    """The given rows of `orthogonal_rows` of all rows.

    Only the blocks that contain them are decomposed. A block has min(num_rows, D) rows,
    so of up to D rows, all are drawn.

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
    """Independent normal rows, made orthogonal in blocks of D; lengths are kept.

    Gram-Schmidt: each row loses its components along the rows of its block before it,
    and is scaled back to its length. Each row by itself is N(0, I) again, because the
    directions are independent of the lengths and their distribution is invariant under
    rotations. So an expectation over a single perturbation, such as that of a gradient
    estimate, keeps its value. The variance falls: for a linear loss and P <= D pairs
    from (D + 1) / P to (D + 2) / P - 1 times the squared gradient, which is much where
    P is near D and little where P is far below D.

    (Choromanski et al. 2018, Structured Evolution, arXiv 1804.02395, "Gaussian
    orthogonal" directions.)

    Args:
        noise: Independent unit normal. # shape=(P, D)

    Returns:
        The noise; rows 0 to D - 1 are orthogonal to one another, and so are rows D to
        2 D - 1, and so on. # shape=(P, D)

    Example:
        >>> orthogonal_rows(jnp.array([[3.0, 4.0], [0.0, 5.0]])).round(4).tolist()
        [[3.0, 4.0], [-4.0, 3.0]]
    """
    num_rows, size = noise.shape
    block = min(num_rows, size)
    whole = jnp.pad(noise, ((0, -num_rows % block), (0, 0)))
    columns = jnp.swapaxes(whole.reshape(-1, block, size), 1, 2)
    basis, triangle = jnp.linalg.qr(columns)
    # A decomposition is unique up to these signs; Gram-Schmidt's are positive.
    sign = jnp.sign(jnp.diagonal(triangle, axis1=1, axis2=2))
    scaled = basis * (sign * jnp.linalg.norm(columns, axis=1))[:, None]
    return jnp.swapaxes(scaled, 1, 2).reshape(-1, size)[:num_rows]

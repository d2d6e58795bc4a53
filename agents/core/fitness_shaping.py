"""Fitness shaping: ranks in place of the losses of an unroll, or its best pairs alone.

Each is opt-in, acts on the losses of one update, and changes what is estimated; see
docs/fitness_shaping.md.
"""

from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from pes_rl.envs.rollout.episodes import Segment

FitnessShaping = Literal["none", "centered-ranks", "top-pairs"]


class ShapingEstimator(Protocol):
    """An estimator with the options of fitness shaping."""

    @property
    def num_pairs(self) -> int: ...

    @property
    def fitness_shaping(self) -> FitnessShaping: ...


def check_fitness_shaping(estimator: ShapingEstimator) -> None:
    """Raise `ValueError` where the options of fitness shaping do not fit together."""
    shaping = estimator.fitness_shaping
    num_top_pairs = getattr(estimator, "num_top_pairs", None)
    if shaping not in ("none", "centered-ranks", "top-pairs"):
        raise ValueError(
            f"fitness_shaping={shaping!r} must be none, centered-ranks or top-pairs"
        )
    if shaping == "top-pairs":
        check_top_pairs(num_top_pairs, estimator.num_pairs)
    elif num_top_pairs is not None:
        raise ValueError(
            f"num_top_pairs={num_top_pairs} has no meaning for fitness_shaping="
            f"{shaping}; drop it, or use top-pairs"
        )
    if shaping != "none" and getattr(estimator, "restart_at_once", False):
        raise ValueError(
            f"fitness_shaping={shaping} needs one loss of each particle, and with "
            "restart_at_once an unroll has those of two episodes; drop one of them"
        )


def check_top_pairs(num_top_pairs: int | None, num_pairs: int) -> None:
    """Raise `ValueError` unless 1 <= b <= P."""
    if num_top_pairs is None or not 1 <= num_top_pairs <= num_pairs:
        raise ValueError(
            f"num_top_pairs={num_top_pairs} must be between 1 and "
            f"num_pairs={num_pairs}; use {max(num_pairs // 2, 1)}"
        )


def shaped_loss(
    estimator: ShapingEstimator, segment: Segment
) -> tuple[jax.Array, jax.Array | None]:
    """Loss of each particle in the unroll, shaped as the estimator's options say.

    Args:
        estimator: Its options decide.
        segment: An unroll of single episodes, of all N particles. Those that were lost
            with their worker get a loss of 0 and leave the others' unchanged.

    Returns:
        (losses [N], their standard deviation). The latter is that of the ranks, or of
        the unshaped losses of the pairs that are used; None without shaping, where it
        is that of the particles' losses.
    """
    loss = segment.loss.sum(0)
    if estimator.fitness_shaping == "none":
        return loss, None
    arrived = jnp.asarray(segment.simulated[0])
    if estimator.fitness_shaping == "centered-ranks":
        return centered_ranks(loss, arrived)
    return top_pairs(loss, arrived, getattr(estimator, "num_top_pairs", 1))


@jax.jit
def centered_ranks(loss: jax.Array, arrived: Any) -> tuple[jax.Array, jax.Array]:
    """Ranks of the losses, from -1/2 for the lowest to 1/2 for the highest.

        r_i = 1 / (2 (N - 1)) sum_j sign(L_i - L_j)

    Equal losses share the mean of their ranks, so the ranks of equal losses are all 0.
    (Salimans et al. 2017, arXiv 1703.03864, section 2; there equal losses get different
    ranks, by their place in the population.)

    Args:
        loss: L. # shape=(N,)
        arrived: Particles to be ranked; N counts these. # shape=(N,), dtype=bool

    Returns:
        (ranks, 0 where not arrived [N]; their standard deviation).

    >>> ranks, _ = centered_ranks(jnp.array([3.0, -1.0, 7.0]), jnp.ones(3, bool))
    >>> ranks.tolist()
    [0.0, -0.5, 0.5]
    """
    arrived = jnp.asarray(arrived)
    count = arrived.sum()
    ordered = jnp.sort(jnp.where(arrived, loss, jnp.inf))
    lower = jnp.searchsorted(ordered, loss, side="left")
    not_higher = jnp.searchsorted(ordered, loss, side="right")
    signs = (lower + not_higher - count).astype(loss.dtype)
    others = jnp.maximum(count - 1, 1).astype(loss.dtype)
    rank = jnp.where(arrived, signs / (2 * others), 0.0)
    return rank, _std(rank, arrived)


@partial(jax.jit, static_argnames="num_top_pairs")
def top_pairs(
    loss: jax.Array, arrived: Any, num_top_pairs: int
) -> tuple[jax.Array, jax.Array]:
    """Losses of the b pairs whose better member has the lowest loss; 0 for the others.

    They are multiplied by P / b, so that a mean over P pairs is one over b pairs. With
    b = P they are the losses, to the bit. (Mania, Guy, Recht 2018, arXiv 1803.07055,
    Algorithm 1, there for whole episodes.)

    Args:
        loss: L. # shape=(N,)
        arrived: Particles to choose from; P counts their pairs, and b is at most that.
            # shape=(N,), dtype=bool
        num_top_pairs: b.

    Returns:
        (losses [N], standard deviation of the 2b that are not multiplied yet).

    >>> loss = jnp.array([3.0, 4.0, -1.0, 9.0])
    >>> top_pairs(loss, jnp.ones(4, bool), 1)[0].tolist()
    [0.0, 0.0, -2.0, 18.0]
    """
    arrived = jnp.asarray(arrived)
    order = pairs_by_better_member(jnp.where(arrived, loss, jnp.inf))
    place = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    present = arrived.sum() // 2
    count = jnp.minimum(num_top_pairs, present)
    used = jnp.repeat(place < count, 2)
    of_pairs = jnp.stack([present, jnp.maximum(count, 1)]).astype(loss.dtype)
    shaped = jnp.where(used, loss * (of_pairs[0] / of_pairs[1]), 0.0)
    return shaped, _std(loss, used)


def pairs_by_better_member(loss: jax.Array) -> jax.Array:
    """Indices of the pairs, by the lower one of their two losses. # shape=(P,)."""
    return jnp.argsort(loss.reshape(-1, 2).min(1))


def _std(values: jax.Array, used: jax.Array) -> jax.Array:
    """Standard deviation of the used values; exactly 0 where all are equal."""
    count = jnp.maximum(used.sum(), 1).astype(values.dtype)
    mean = jnp.where(used, values, 0.0).sum() / count
    square = jnp.where(used, (values - mean) ** 2, 0.0).sum() / count
    highest = jnp.where(used, values, -jnp.inf).max()
    differ = highest > jnp.where(used, values, jnp.inf).min()
    # Not square > 0: that of equal numbers need not be 0, because their mean rounds.
    return jnp.where(differ, jnp.sqrt(square), 0.0)

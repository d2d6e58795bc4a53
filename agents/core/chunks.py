"""Gradient estimates of large policies, from one chunk of the population at a time.

The perturbations of N particles are N D floats. Where these do not fit into memory, the
population is cut into chunks of whole pairs. One chunk after another is drawn, unrolled
and reduced to D floats: pairs share nothing but the sum of their parts of the gradient.
Draws and simulations are those of the whole population; only the order in which floats
are added differs.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.agents.core.report import Report
from pes_rl.envs.rollout.base import Rollout

CHUNK_FLOATS = 2**28
"""Most perturbation floats of a chunk, where the user sets no size: 1 GiB.

An update holds three to six arrays of this size (results/scaling).
"""

EstimatePairs = Callable[[Any, Any], tuple[jax.Array, Any, Report]]
"""(first pair, rows of a chunk) -> (contributions, rows after, report).

The contributions [2n, D] are the parts of the gradient estimate that a population of
these n pairs alone would give.
"""


class ChunkedEstimator(Protocol):
    """An estimator whose population can be cut into chunks."""

    @property
    def num_pairs(self) -> int: ...

    @property
    def pairs_per_chunk(self) -> int | None: ...


def chunk_size(estimator: ChunkedEstimator, rollout: Rollout, theta: jax.Array) -> int:
    """Pairs of a chunk of this estimator; errors as `pairs_at_once`."""
    pairs = pairs_at_once(
        rollout,
        estimator.pairs_per_chunk,
        estimator.num_pairs,
        theta.size,
        getattr(estimator, "orthogonal", False),
    )
    for name, without in (("fitness_shaping", "none"), ("critic_discount", None)):
        value = getattr(estimator, name, without)
        if value != without and pairs < estimator.num_pairs:
            raise ValueError(
                f"{name}={value} needs the losses of all {estimator.num_pairs} "
                f"pairs at once, here in chunks of {pairs}; drop it, or use "
                f"pairs_per_chunk={estimator.num_pairs}"
            )
    return pairs


def pairs_at_once(
    rollout: Rollout,
    pairs_per_chunk: int | None,
    num_pairs: int,
    num_parameters: int,
    orthogonal: bool = False,
) -> int:
    """Number n of pairs in a chunk, a divisor of P.

    Args:
        rollout: Its simulation states must be copyable where n < P.
        pairs_per_chunk: n, if the user set it; None takes the largest that fits in
            `CHUNK_FLOATS`, and P where the rollout cannot copy.
        num_pairs: P.
        num_parameters: D.
        orthogonal: Whether perturbations are orthogonal, which needs n = P.

    Raises:
        ValueError: If n does not divide P, or the population cannot be cut.
    """
    divisors = [n for n in range(1, num_pairs + 1) if num_pairs % n == 0]
    if pairs_per_chunk is not None:
        pairs = pairs_per_chunk
        if pairs not in divisors:
            raise ValueError(
                f"pairs_per_chunk={pairs} does not divide num_pairs={num_pairs}; use "
                f"{max([n for n in divisors if n <= pairs], default=1)}, for example"
            )
    else:
        fits = [n for n in divisors if 2 * n * num_parameters <= CHUNK_FLOATS]
        pairs = max(fits, default=1) if rollout.can_copy else num_pairs
    if pairs < num_pairs and not rollout.can_copy:
        raise ValueError(
            f"pairs_per_chunk={pairs} cuts the population, and the states of these "
            "simulations cannot be copied; drop it"
        )
    if pairs < num_pairs and orthogonal:
        raise ValueError(
            f"orthogonal needs all {num_pairs} pairs at once, here in chunks of "
            f"{pairs}; drop it, which where P is far below D makes little difference, "
            f"or use pairs_per_chunk={num_pairs}"
        )
    return pairs


def without_chunks(estimator: Any) -> Any:
    """The estimator without chunks of the population, for several devices.

    Each device draws its share as a whole, which limits memory as chunks do. Chunks of
    consecutive pairs would move states and accumulators between devices.

    Raises:
        ValueError: If the estimator is told to use chunks.
    """
    chunk = getattr(estimator, "pairs_per_chunk", 0)
    if chunk == 0:  # The estimator has no such option.
        return estimator
    if chunk not in (None, estimator.num_pairs):
        raise ValueError(
            f"pairs_per_chunk={chunk} is for a single device; drop it, as each of "
            "several draws only its share of the perturbations"
        )
    return replace(estimator, pairs_per_chunk=estimator.num_pairs)


def in_chunks(
    estimator: ChunkedEstimator,
    rollout: Rollout,
    theta: jax.Array,
    estimate: EstimatePairs,
    rows: Any,
) -> tuple[jax.Array, Any, Report]:
    """The estimate of all pairs, as the mean of those of the chunks.

    Args:
        estimator: Decides the number of pairs and their chunks.
        rollout: The rollout that `estimate` uses.
        theta: Mean parameters. # shape=(D,)
        estimate: Makes the estimate of one chunk.
        rows: Tree of what belongs to particles, leading axis N.

    Returns:
        (gradient [D], rows after, report of all).
    """
    num_pairs, size = estimator.num_pairs, chunk_size(estimator, rollout, theta)
    count = num_pairs // size
    if count == 1:
        contributions, after, report = estimate(0, rows)
        return contributions.sum(0), after, report

    def one(first: Any, part: Any) -> tuple[jax.Array, tuple[Any, Report]]:
        contributions, after, report = estimate(first, part)
        return _sums(contributions, first, num_pairs), (after, report)

    if rollout.on_device:
        sums, after, reports = _scan(one, rows, count, size)
    else:
        sums, after, reports = _loop(one, rows, count, size)
    sums = sums / count
    return sums.sum(0), after, _merge(reports, sums)


def _scan(one: Any, rows: Any, count: int, size: int) -> tuple[Any, Any, Any]:
    """(sums, rows after, stacked reports) of the chunks, by `lax.scan`."""
    firsts = size * jnp.arange(count)
    parts = jax.tree.map(lambda x: x.reshape(count, 2 * size, *x.shape[1:]), rows)
    shape = jax.eval_shape(one, *jax.tree.map(lambda x: x[0], (firsts, parts)))[0]

    def add(total: jax.Array, chunk: Any) -> tuple[jax.Array, Any]:
        sums, rest = one(*chunk)
        return total + sums, rest

    start = jnp.zeros(shape.shape, shape.dtype)
    total, (after, reports) = lax.scan(add, start, (firsts, parts))
    whole = jax.tree.map(lambda x: x.reshape(2 * size * count, *x.shape[2:]), after)
    return total, whole, reports


def _loop(one: Any, rows: Any, count: int, size: int) -> tuple[Any, Any, Any]:
    """(sums, rows after, stacked reports) of the chunks, by a Python loop."""
    total, done = None, []
    for first in range(0, size * count, size):
        own = slice(2 * first, 2 * (first + size))
        part = jax.tree.map(lambda leaf, own=own: leaf[own], rows)
        sums, rest = one(first, part)
        total = sums if total is None else total + sums
        done.append(rest)
    parts, reports = zip(*done, strict=True)
    whole = jax.tree.map(lambda *leaves: _module(leaves).concatenate(leaves), *parts)
    return total, whole, jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)


def _module(leaves: Any) -> Any:
    return jnp if isinstance(leaves[0], jax.Array) else np


@jax.jit
def _sums(contributions: jax.Array, first: Any, num_pairs: Any) -> jax.Array:
    """Sums over pairs at even places, at odd places, and over the last if P is odd.

    These are the halves that `signal_to_noise` compares. # shape=(3, D)
    """
    count = contributions.shape[0] // 2
    pairs = contributions.reshape(count, 2, -1).sum(1)
    index = first + jnp.arange(count)
    place = jnp.where(index < num_pairs // 2 * 2, index % 2, 2)
    each = [jnp.where((place == k)[:, None], pairs, 0.0).sum(0) for k in range(3)]
    return jnp.stack(each)


@jax.jit
def _merge(reports: Report, sums: jax.Array) -> Report:
    """The report of all pairs from the stacked reports of the chunks."""
    first, second = sums[0], sums[1]
    observations = reports.observations
    if observations is not None:
        begin, rest = (
            jax.tree.map(lambda leaf, s=s: leaf[s], observations)
            for s in (0, slice(1, None))
        )
        observations, _ = lax.scan(lambda m, o: (m.merge(o), None), begin, rest)
    noise = jnp.sum((first - second) ** 2)
    return replace(
        reports,
        particle_loss=reports.particle_loss.reshape(-1),
        arrived=reports.arrived.reshape(-1),
        gradient_norm=jnp.linalg.norm(sums.sum(0)),
        signal_to_noise=4 * jnp.vdot(first, second) / noise,
        accumulator_norm=reports.accumulator_norm.mean(),
        observations=observations,
        **{
            name: getattr(reports, name).sum(dtype=getattr(reports, name).dtype)
            for name in (
                "env_steps",
                "episodes",
                "episode_loss",
                "episode_steps",
                "diverged",
            )
        },
    )

"""Observation normalisation: running mean and variance, as in ARS V2.

Policies see (observation - mean) / std in each dimension (Mania, Guy, Recht 2018, arXiv
1803.07055, Algorithm 2). The moments are constant within an unroll and include its
observations after the update. `docs/observation_normalization.md` states what that does
to the bias of an estimate, and the differences from ARS.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # a JAX or a NumPy array

SMALLEST_STD = 1e-7
"""A smaller std means that a dimension has not varied (the threshold of ARS's code)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ObservationSums:
    """Sums over the observations that each particle acted on in an unroll.

    They are sums of differences from a reference, which is one of the observations. So
    float32 loses no digits to a large mean, and a dimension that does not vary sums to
    exactly 0.

    Attributes:
        reference: An observation. # shape=(1, O)
        total: Sum of (observation - reference). # shape=(N, O)
        square: Sum of (observation - reference)^2. # shape=(N, O)
    """

    reference: Array
    total: Array
    square: Array


def empty_sums(observation: Array, reference: Array | None = None) -> ObservationSums:
    """Sums over no observations yet.

    Args:
        observation: Observations of the particles, for their shape. # shape=(N, O)
        reference: Reference of the sums; None takes the `median`. # shape=(1, O)
    """
    xp = observation.__array_namespace__()
    zeros = xp.zeros_like(observation)
    if reference is None:
        reference = median(observation)
    return ObservationSums(reference, zeros, zeros)


def median(observation: Array) -> Array:
    """Median over the particles of each dimension of the observation. # shape=(1, O).

    It is the reference of the sums, because a particle that is about to diverge does
    not affect it.
    """
    xp = observation.__array_namespace__()
    middle = len(observation) // 2
    return xp.sort(observation, axis=0)[middle : middle + 1]


def add_observations(
    sums: ObservationSums, observation: Array, running: Array
) -> ObservationSums:
    """Add the observations [N, O] of the `running` particles to their sums."""
    xp = observation.__array_namespace__()
    deviation = xp.where(running[:, None], observation - sums.reference, 0)
    return ObservationSums(
        sums.reference, sums.total + deviation, sums.square + deviation * deviation
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ObservationMoments:
    """Mean, variance and number of a set of observations.

    Attributes:
        count: Number of observations. # shape=(), dtype=float32
        mean: # shape=(O,), dtype=float32
        variance: Of the population, as `np.var` has it. # shape=(O,), dtype=float32

    Example:
        >>> moments = ObservationMoments(np.float32(9), np.ones(1), np.full(1, 4.0))
        >>> moments.normalize(np.array([5.0])).tolist()
        [2.0]
    """

    count: Array
    mean: Array
    variance: Array

    @classmethod
    def empty(cls, observation_size: int) -> "ObservationMoments":
        """Moments of no observations; normalisation by them changes nothing."""
        zeros = jnp.zeros(observation_size)
        return cls(jnp.zeros(()), zeros, zeros)

    @property
    def std(self) -> Array:
        """Standard deviation, or 1 in a dimension that has not varied. # shape=(O,)."""
        xp = self.variance.__array_namespace__()
        std = xp.sqrt(self.variance)
        return xp.where(std < SMALLEST_STD, xp.ones_like(std), std)

    def normalize(self, observation: Array) -> Array:
        """(observation - mean) / std. # shape=(O,) or (N, O)."""
        return (observation - self.mean) / self.std

    def merge(self, other: "ObservationMoments") -> "ObservationMoments":
        """Moments of the union of both sets (Chan, Golub, LeVeque 1983)."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1.0)
        shift = other.mean - self.mean
        within = (1 - share) * self.variance + share * other.variance
        return ObservationMoments(
            count,
            self.mean + share * shift,
            within + share * (1 - share) * shift**2,
        )


def compute_moments(
    sums: ObservationSums, simulated: Array, diverged: Array
) -> ObservationMoments:
    """Moments of the observations that all particles acted on in an unroll.

    Particles with a simulation that diverged, or with squares that overflow float32,
    are excluded.

    Args:
        sums: Sums of the unroll.
        simulated: Which steps were simulated. # shape=(K, N)
        diverged: At which of them a simulation diverged. # shape=(K, N)
    """
    valid = jnp.isfinite(sums.square).all(1) & ~diverged.any(0)
    count = jnp.where(valid, simulated.sum(0, dtype=jnp.int32), 0).sum()
    count = count.astype(jnp.float32)
    total, square = (
        jnp.where(valid[:, None], each, 0.0).sum(0) / jnp.maximum(count, 1.0)
        for each in (sums.total, sums.square)
    )
    variance = jnp.maximum(square - total**2, 0.0)
    return ObservationMoments(count, sums.reference[0] + total, variance)


def sums_as_float32(sums: ObservationSums) -> ObservationSums:
    """The sums of a host rollout in float32; what overflows becomes infinite."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: leaf.astype(np.float32), sums)

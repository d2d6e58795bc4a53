"""Observation normalisation: running mean and variance, as in ARS V2.

Policies see (observation - mean) / std, dimension by dimension, with the statistics of
every observation that a training particle has acted on so far (Mania, Guy, Recht 2018,
arXiv 1803.07055, Algorithm 2). They stand still within an unroll and take in its
observations after the update. Evaluation uses them and adds nothing to them, and so
does the unroll of the mean policy in truncated-es.

What it does to unbiasedness. With given statistics the normalised policy is a policy as
any other, and every estimator is for its loss what it is without normalisation; sigma
then is a perturbation of the weights of normalised observations. But the statistics
move between updates:

* An episode that lies within one unroll (es) meets one set of statistics, all of it
  older than the perturbation. The estimate is unbiased for the loss of the policy that
  has these.
* An episode of several unrolls (pes, nres) meets several sets, as it meets several
  theta. As the moves of theta do, that makes the estimate one of a mixture of policies.
  And the later sets hold observations that the episode's own earlier perturbations
  brought about, through which these act on its later losses: the estimate takes in that
  effect too. Both fade as observations gather: n new ones among `count` have the share
  n / count in the statistics.

Differences from ARS: a dimension that has never varied is left unscaled, where the
authors' code sets it to 0; the variance is the population's; nothing is clipped.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # a JAX or a NumPy array

SMALLEST_STD = 1e-7
"""A dimension with less has not varied (the threshold is that of the ARS code)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ObservationSums:
    """Sums over the observations that each particle acted on in an unroll.

    They are taken about a reference among the observations themselves, so that float32
    loses nothing to a large mean, and a dimension that does not vary sums to exactly 0.

    Attributes:
        reference: # shape=(1, O)
        total: Sum of (observation - reference). # shape=(N, O)
        square: Sum of (observation - reference)^2. # shape=(N, O)
    """

    reference: Array
    total: Array
    square: Array


def empty_sums(observation: Array, reference: Array | None = None) -> ObservationSums:
    """Empty sums for particles with observations [N, O], about `median` if not this."""
    xp = observation.__array_namespace__()
    zeros = xp.zeros_like(observation)
    if reference is None:
        reference = median(observation)
    return ObservationSums(reference, zeros, zeros)


def median(observation: Array) -> Array:
    """The median particle's observation, dimension-wise. # shape=(1, O).

    The reference of sums, because a particle that is about to diverge must not be that
    of the others.
    """
    xp = observation.__array_namespace__()
    middle = len(observation) // 2
    return xp.sort(observation, axis=0)[middle : middle + 1]


def add_observations(
    sums: ObservationSums, observation: Array, running: Array
) -> ObservationSums:
    """Take in the observations [N, O] that the `running` particles act on."""
    xp = observation.__array_namespace__()
    deviation = xp.where(running[:, None], observation - sums.reference, 0)
    return ObservationSums(
        sums.reference, sums.total + deviation, sums.square + deviation * deviation
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ObservationMoments:
    """Mean and variance of a set of observations, and how many they are.

    Attributes:
        count: # shape=(), dtype=float32
        mean: # shape=(O,), dtype=float32
        variance: The population's, as of `np.var`. # shape=(O,), dtype=float32
    """

    count: Array
    mean: Array
    variance: Array

    @classmethod
    def empty(cls, observation_size: int) -> "ObservationMoments":
        """Of no observations yet; normalisation by them changes nothing."""
        zeros = jnp.zeros(observation_size)
        return cls(jnp.zeros(()), zeros, zeros)

    @property
    def std(self) -> Array:
        """What a deviation from the mean is divided by; 1 where nothing varied."""
        xp = self.variance.__array_namespace__()
        std = xp.sqrt(self.variance)
        return xp.where(std < SMALLEST_STD, xp.ones_like(std), std)

    def normalize(self, observation: Array) -> Array:
        """(observation - mean) / std. # shape=(O,) or (N, O)."""
        return (observation - self.mean) / self.std

    def merge(self, other: "ObservationMoments") -> "ObservationMoments":
        """Moments of both sets together (Chan, Golub, LeVeque 1983)."""
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

    Particles of which a simulation diverged, or whose numbers float32 cannot square,
    are left out.

    Args:
        sums: Of the unroll.
        simulated: Which steps were taken. # shape=(K, N)
        diverged: At which of them a simulation diverged. # shape=(K, N)
    """
    sound = jnp.isfinite(sums.square).all(1) & ~diverged.any(0)
    count = jnp.where(sound, simulated.sum(0, dtype=jnp.int32), 0).sum()
    count = count.astype(jnp.float32)
    total, square = (
        jnp.where(sound[:, None], each, 0.0).sum(0) / jnp.maximum(count, 1.0)
        for each in (sums.total, sums.square)
    )
    variance = jnp.maximum(square - total**2, 0.0)
    return ObservationMoments(count, sums.reference[0] + total, variance)


def sums_as_float32(sums: ObservationSums) -> ObservationSums:
    """NumPy's sums in JAX's precision; what overflows there becomes infinite."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: leaf.astype(np.float32), sums)

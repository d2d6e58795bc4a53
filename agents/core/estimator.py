"""What every gradient estimator is, and the pieces that all of them share.

Symbols: theta [D] the mean parameters, sigma the perturbations' standard deviation,
epsilon a unit normal draw, N = 2P particles in P antithetic pairs, K steps in a partial
unroll, T steps in the longest episode.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Array, Segment
from pes_rl.envs.rollout.observations import ObservationMoments, compute_moments


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """What one gradient estimate saw. Counts are int32, of this estimate alone.

    Attributes:
        particle_loss: Loss that each particle brought. # shape=(N,), dtype=float32
        env_steps: Simulated environment steps, all that the estimate needed.
        episodes: Episodes that ended in the unroll.
        episode_loss: Sum of the whole losses of those episodes.
        episode_steps: Sum of the lengths of those episodes, in steps.
        diverged: Episodes among them that ended because the simulation diverged.
        gradient_norm: Euclidean norm of the estimate.
        signal_to_noise: Estimated squared norm of the true gradient over the variance
            of the estimate, from the two halves of the population; negative where the
            halves point apart, NaN with a single pair and where pairs are not
            independent.
        accumulator_norm: Mean Euclidean norm of the particles' accumulators; 0 for
            estimators that have none.
        arrived: Which particles were simulated; the others are lost, and brought
            nothing. # shape=(N,), dtype=bool
        observations: Moments of the observations that the particles acted on, where
            the rollout normalises them; else None.
    """

    particle_loss: Array
    env_steps: Array
    episodes: Array
    episode_loss: Array
    episode_steps: Array
    diverged: Array
    gradient_norm: Array
    signal_to_noise: Array
    accumulator_norm: Array
    arrived: Array
    observations: ObservationMoments | None = None


class Estimator(Protocol):
    """A frozen configuration with two pure functions; the step is the optimiser's.

    On a device rollout both can be jitted, vmapped and scanned. The configuration's
    fields are the agent's options; one without a default must be given.
    """

    def max_steps(self, horizon: int | None) -> int:
        """Environment steps that one estimate simulates, at most."""
        ...

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Any:
        """State before the first estimate.

        Raises:
            ValueError: If the estimator cannot run on this rollout.
        """
        ...

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Any, key: jax.Array
    ) -> tuple[jax.Array, Any, Report]:
        """One estimate of the gradient of the loss, to be descended.

        Args:
            rollout: The rollout that `state` belongs to.
            theta: Mean parameters. # shape=(D,)
            state: From `init` or the estimate before.
            key: Consumed.

        Returns:
            (gradient [D], state, report).
        """
        ...


@runtime_checkable
class PerturbingEstimator(Estimator, Protocol):
    """An estimator that perturbs theta, with antithetic pairs of particles."""

    @property
    def num_pairs(self) -> int: ...

    @property
    def sigma(self) -> Any:
        """Standard deviation of the perturbations; a schedule may replace it.

        `dataclasses.replace(estimator, sigma=...)` with a traced scalar is how.
        """
        ...


def check_population(num_pairs: int, sigma: Any) -> None:
    """Raise `ValueError` unless there is at least one pair and sigma is positive.

    A sigma that is an array comes from a schedule and is not looked at.
    """
    if num_pairs < 1:
        raise ValueError(
            f"num_pairs={num_pairs} must be at least 1 (two particles); "
            "use 10, for example"
        )
    if isinstance(sigma, int | float) and not sigma > 0:
        raise ValueError(f"sigma={sigma} must be above 0; use 0.1, for example")


def check_truncation_length(truncation_length: int, horizon: int | None) -> None:
    """Raise `ValueError` unless 1 <= K <= T."""
    if truncation_length < 1:
        raise ValueError(
            f"truncation_length={truncation_length} must be at least 1 step; "
            "use 100, for example"
        )
    if horizon is not None and truncation_length > horizon:
        raise ValueError(
            f"truncation_length={truncation_length} is longer than the horizon of "
            f"{horizon} steps; use {horizon} or less"
        )


def check_whole_episodes(agent: str, horizon: int | None) -> None:
    """Raise `ValueError` unless episodes have an end, as `agent` needs."""
    if horizon is None:
        raise ValueError(
            f"{agent} plays whole episodes, and here they have no end; "
            "use pes or truncated-es, or set a horizon"
        )


MATMUL_THRESHOLD = 2**16
"""Above so many, two sums over particles are one matrix product: the other way a second
population is written, as dear as the rest of an update. Below it is the product."""


@jax.jit
def signal_to_noise(contributions: jax.Array) -> jax.Array:
    """Signal-to-noise ratio of a mean, from the pairs in even and in odd places.

    With g1 and g2 the two halves' sums, their product 4 g1 . g2, which is
    |g1 + g2|^2 - |g1 - g2|^2, has the mean |E (g1 + g2)|^2, and |g1 - g2|^2 that of the
    variance of g1 + g2.

    Args:
        contributions: Each particle's part of the sum. # shape=(N, D)
    """
    pair = np.arange(contributions.shape[0]) // 2
    even_pairs = len(pair) // 4 * 2
    if even_pairs == 0:
        return jnp.array(jnp.nan, contributions.dtype)
    # Sums over all particles, as several devices can take them. A last odd pair is out.
    counted = pair < even_pairs
    signs = np.where(pair % 2 == 0, 1.0, -1.0)
    if contributions.size > MATMUL_THRESHOLD:
        weights = jnp.asarray([counted, counted * signs], contributions.dtype)
        total, difference = jnp.matmul(weights, contributions, precision="highest")
    else:
        if not counted.all():
            contributions = jnp.where(counted[:, None], contributions, 0.0)
        alternating = jnp.where(signs[:, None] > 0, contributions, -contributions)
        total, difference = contributions.sum(0), alternating.sum(0)
    noise = jnp.vdot(difference, difference)
    return (jnp.vdot(total, total) - noise) / noise


def describe(
    before: Particles,
    after: Particles,
    segment: Segment,
    contributions: jax.Array,
    accumulator: jax.Array | None = None,
    *,
    independent_pairs: bool = True,
) -> Report:
    """Report of the estimate made from one unroll.

    Args:
        before: The particles when the unroll began.
        after: The particles after it.
        segment: The unroll.
        contributions: Each particle's part of the gradient. # shape=(N, D)
        accumulator: After the unroll, if the estimator has one. # shape=(N, D)
        independent_pairs: False where the pairs' perturbations are orthogonal, so that
            two halves of them say nothing of the noise.
    """
    # Of the particles only what is an array on every driver enters the jitted part.
    report = _describe(
        segment,
        before.loss,
        after.loss,
        before.clock.elapsed,
        after.clock.elapsed,
        contributions,
        accumulator,
    )
    if independent_pairs:
        return report
    return replace(
        report, signal_to_noise=jnp.full_like(report.signal_to_noise, jnp.nan)
    )


@jax.jit
def _describe(
    segment: Segment,
    loss_before: Array,
    loss_after: Array,
    elapsed_before: Array,
    elapsed_after: Array,
    contributions: jax.Array,
    accumulator: jax.Array | None,
) -> Report:
    particle_loss = segment.loss.sum(0)
    simulated = segment.simulated.sum(0, dtype=jnp.int32)
    norm = 0.0 if accumulator is None else jnp.linalg.norm(accumulator, axis=1).mean()
    arrived = segment.simulated[0]
    sums, observations = segment.observations, None
    if sums is not None:
        observations = compute_moments(sums, segment.simulated, segment.diverged)

    def finished(_: None) -> tuple[jax.Array, ...]:
        # What the episodes brought that ended: all that the particles had or met, less
        # what belongs to the episodes that are running now. Lost ones never end.
        loss = jnp.where(arrived, loss_before + particle_loss - loss_after, 0.0)
        steps = jnp.where(arrived, elapsed_before + simulated - elapsed_after, 0)
        counts = (
            rows.sum(dtype=jnp.int32) for rows in (segment.ended, segment.diverged)
        )
        return *counts, loss.sum(), steps.sum()

    nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(finished, None))
    episodes, diverged, episode_loss, episode_steps = lax.cond(
        jnp.asarray(segment.ended).any(1).any(), finished, lambda _: nothing, None
    )
    return Report(
        particle_loss=particle_loss,
        env_steps=simulated.sum(dtype=jnp.int32),
        episodes=episodes,
        episode_loss=episode_loss,
        episode_steps=episode_steps,
        diverged=diverged,
        gradient_norm=jnp.linalg.norm(contributions.sum(0)),
        signal_to_noise=signal_to_noise(contributions),
        accumulator_norm=jnp.asarray(norm, jnp.float32),
        arrived=arrived,
        observations=observations,
    )

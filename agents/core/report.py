"""The report of one gradient estimate: counts, losses, norms, signal-to-noise ratio.

Symbols: N = 2P particles in P antithetic pairs, K steps of an unroll, D parameters.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.envs.rollout.base import Particles
from pes_rl.envs.rollout.episodes import Array, Segment
from pes_rl.envs.rollout.observations import ObservationMoments, compute_moments

MATMUL_THRESHOLD = 2**16
"""Number of floats above which two sums over particles are one matrix product.

Above it, the other way writes a second array of the population's size, which costs as
much as the rest of an update. Below it, the matrix product is the slower one.
"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """Statistics of one gradient estimate; counts are int32, of this estimate alone.

    Attributes:
        particle_loss: Loss of each particle in this estimate.
            # shape=(N,), dtype=float32
        env_steps: Simulated environment steps, all that the estimate needed.
        episodes: Episodes that ended in the unroll; of the mean parameters alone where
            the perturbed unrolls start from copies (truncated-es).
        episode_loss: Sum of the whole losses of those episodes; without a reward shift
            that changes between updates.
        episode_steps: Sum of the lengths of those episodes, in steps.
        diverged: Simulations that diverged, which ended their episode or their copy.
        gradient_norm: Euclidean norm of the estimate.
        signal_to_noise: Estimated squared norm of the true gradient over the variance
            of the estimate, from the two halves of the population; negative where the
            two halves' estimates have a negative inner product, NaN with a single pair
            and where pairs are not independent. Where losses are shaped it is
            approximate, as each pair's part then depends a little on the others'.
        accumulator_norm: Mean Euclidean norm of the particles' accumulators; 0 for
            estimators that have none.
        arrived: Which particles were simulated; the others were lost with their worker
            and contribute nothing. # shape=(N,), dtype=bool
        observations: Moments of the observations that the particles acted on, where
            the rollout normalises them; else None.
        loss_std: Standard deviation of the losses or ranks that the estimate was made
            from, where losses are shaped (see `shaped_loss`) or a critic changes them;
            else None.
        critic_explained: Share of the variance of the critic's targets that it predicts
            (see `CriticLosses`); None without a critic.
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
    loss_std: Array | None = None
    critic_explained: Array | None = None


def describe(
    before: Particles,
    after: Particles,
    segment: Segment,
    contributions: jax.Array,
    accumulator: jax.Array | None = None,
    *,
    independent_pairs: bool = True,
    loss_std: jax.Array | None = None,
) -> Report:
    """Report of the estimate made from one unroll.

    Args:
        before: The particles when the unroll began.
        after: The particles after it.
        segment: The unroll.
        contributions: Each particle's part of the gradient. # shape=(N, D)
        accumulator: After the unroll, if the estimator has one. # shape=(N, D)
        independent_pairs: False where the pairs' perturbations are orthogonal: then the
            difference of two halves does not measure the noise, and the report's
            signal-to-noise ratio is NaN.
        loss_std: As in `Report`.
    """
    # Only these fields of particles are arrays on every driver, which jit needs.
    report = _describe(
        segment,
        before.loss,
        after.loss,
        before.clock.elapsed,
        after.clock.elapsed,
        contributions,
        accumulator,
    )
    report = replace(report, loss_std=loss_std)
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
        # The ended episodes' losses and steps: those before the unroll and in it, less
        # those of the episodes that are running now. Lost episodes never end.
        unshifted = particle_loss
        if segment.reward_shift is not None:
            counted = (segment.simulated & ~segment.diverged).sum(0)
            shifts = segment.reward_shift * counted.astype(particle_loss.dtype)
            unshifted = particle_loss - shifts
        loss = jnp.where(arrived, loss_before + unshifted - loss_after, 0.0)
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


@jax.jit
def signal_to_noise(contributions: jax.Array) -> jax.Array:
    """Signal-to-noise ratio of a gradient estimate, from two halves of its pairs.

    With g1 the sum over the pairs at even places and g2 that over the pairs at odd
    places, the ratio is 4 g1 . g2 / |g1 - g2|^2. The numerator, which is
    |g1 + g2|^2 - |g1 - g2|^2, has the mean |E (g1 + g2)|^2; the denominator has the
    variance of g1 + g2 as its mean. A last odd pair is left out.

    Args:
        contributions: Each particle's part of the gradient. # shape=(N, D)
    """
    pair = np.arange(contributions.shape[0]) // 2
    even_pairs = len(pair) // 4 * 2
    if even_pairs == 0:
        return jnp.array(jnp.nan, contributions.dtype)
    # Sums over all particles, because several devices can add those up.
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

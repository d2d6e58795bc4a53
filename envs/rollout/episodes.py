"""Episode bookkeeping: the one place that knows what the end of an episode means.

Both drivers (`device.py` in JAX, `host.py` in NumPy) pass every step through
`record_step`, so an episode that ends early, a time limit and a simulation that
diverges mean the same on either. The functions take JAX or NumPy arrays alike.

Axis letters: N particles, K steps of an unroll. Particles 2p and 2p + 1 are the two
members of antithetic pair p.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.envs.rollout.observations import Array, ObservationSums

NO_LIMIT = np.iinfo(np.int32).max
"""Step limit of an episode that no horizon ends."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clock:
    """Where each particle stands in its run of episodes.

    Attributes:
        seed: Key data of the particle's randomness, the same for the two members of a
            pair. # shape=(N, 2), dtype=uint32
        episode: Index of the running episode. # shape=(N,), dtype=int32
        elapsed: Steps of the running episode so far. # shape=(N,), dtype=int32
        limit: Steps after which the running episode is cut. # shape=(N,), dtype=int32
    """

    seed: Array
    episode: Array
    elapsed: Array
    limit: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segment:
    """What one unroll of K steps by N particles returns.

    The loss of a step belongs to the episode that the step was taken in: where
    `ended[k, i]` is set, `loss[k, i]` is the old episode's last one.

    Attributes:
        loss: Loss of each step; 0 where nothing was simulated.
            # shape=(K, N), dtype=float32
        ended: Whether the episode ended with this step. # shape=(K, N), dtype=bool
        diverged: Whether it ended because the simulation diverged.
            # shape=(K, N), dtype=bool
        simulated: Whether the step was simulated at all: False after the end of a
            particle that was to play a single episode. # shape=(K, N), dtype=bool
        observations: Sums over the observations acted on, where the rollout normalises
            them; else None.
    """

    loss: Array
    ended: Array
    diverged: Array
    simulated: Array
    observations: ObservationSums | None = None


def start_clock(
    key: jax.Array,
    num_pairs: int,
    horizon: int | None,
    *,
    members: int = 2,
    stagger: bool = False,
) -> Clock:
    """Clock of `members * num_pairs` particles at the first step of their episode 0.

    Args:
        key: JAX key; each pair gets one split of it.
        num_pairs: Number of pairs P.
        horizon: Steps T after which an episode is cut, or None for no limit.
        members: Particles that share a pair's randomness: 2, or 1 for evaluation.
        stagger: Spread the particles' phases over the episode by cutting the first
            episode of pair p after (p + 1) T / P steps. It is a real, shorter episode.

    Raises:
        ValueError: If `stagger` is asked for without a horizon to spread over.
    """
    if stagger and horizon is None:
        raise ValueError("stagger needs a finite horizon; use stagger=False")
    limit = np.full(num_pairs, horizon or NO_LIMIT)
    if stagger:
        limit = np.maximum(np.arange(1, num_pairs + 1) * limit // num_pairs, 1)
    num_particles = members * num_pairs
    seed = jax.random.key_data(jax.random.split(key, num_pairs))
    return Clock(
        seed=jnp.repeat(seed, members, axis=0),
        episode=jnp.zeros(num_particles, jnp.int32),
        elapsed=jnp.zeros(num_particles, jnp.int32),
        limit=jnp.asarray(np.repeat(limit, members), jnp.int32),
    )


def episode_keys(seed: Array, episode: Array) -> jax.Array:
    """Key data of each particle's given episode: `fold_in(seed, episode)`.

    The j-th episodes of the two members of a pair get the same key, whenever they
    begin. shape=(N, 2), dtype=uint32.
    """
    keys = jax.random.wrap_key_data(jnp.asarray(seed))
    return jax.random.key_data(jax.vmap(jax.random.fold_in)(keys, jnp.asarray(episode)))


def record_step(
    clock: Clock,
    loss: Array,
    terminated: Array,
    running: Array,
    *,
    horizon: int | None,
    diverged_loss: float,
) -> tuple[Clock, Segment]:
    """Book one simulated step of every particle.

    A non-finite loss is a simulation that diverged: its episode ends here and
    `diverged_loss` stands in for the loss of this step.

    Args:
        clock: Before the step.
        loss: Loss of the step. # shape=(N,)
        terminated: Whether the environment itself ended the episode. # shape=(N,)
        running: Whether the particle took the step at all. # shape=(N,)
        horizon: Steps after which the next episode will be cut, or None.
        diverged_loss: Stated loss of the step at which a simulation diverged.

    Returns:
        The clock after the step, in the next episode where one ended, and the step's
        row of the segment, each field of shape (N,).
    """
    xp = clock.elapsed.__array_namespace__()
    loss, diverged = replace_diverged(loss, running, diverged_loss)
    elapsed = _elapse(clock.elapsed, running.astype(xp.int32))
    ended = running & (terminated | diverged | (elapsed >= clock.limit))
    one_if_ended = ended.astype(xp.int32)
    after = Clock(
        seed=clock.seed,
        episode=clock.episode + one_if_ended,
        elapsed=elapsed * (1 - one_if_ended),
        limit=xp.where(ended, horizon or NO_LIMIT, clock.limit),
    )
    return after, Segment(loss=loss, ended=ended, diverged=diverged, simulated=running)


def replace_diverged(
    loss: Array, running: Array, diverged_loss: float
) -> tuple[Array, Array]:
    """What is recorded of losses as they were simulated, and which of them diverged.

    0 where nothing ran, `diverged_loss` where what ran is not finite. All arrays of one
    shape, that of a step or of an unroll.
    """
    xp = loss.__array_namespace__()
    diverged = running & ~xp.isfinite(loss)
    return xp.where(running, xp.where(diverged, diverged_loss, loss), 0.0), diverged


def steps_to_limit(clock: Clock, running: Array) -> Array:
    """Steps until the first of the running particles is at its limit, int32."""
    xp = clock.elapsed.__array_namespace__()
    return xp.min(xp.where(running, clock.limit - clock.elapsed, NO_LIMIT))


def advance_clock(clock: Clock, running: Array, steps: Array | int) -> Clock:
    """Book `steps` steps of every running particle in which no episode ended.

    As `record_step` after each of them, at the cost of one; at most
    `steps_to_limit` - 1 steps.
    """
    xp = clock.elapsed.__array_namespace__()
    elapsed = _elapse(clock.elapsed, running.astype(xp.int32) * xp.int32(steps))
    return replace(clock, elapsed=elapsed)


def _elapse(elapsed: Array, steps: Array) -> Array:
    """Saturates below NO_LIMIT, so an endless episode outlives any counter."""
    xp = elapsed.__array_namespace__()
    return xp.minimum(elapsed, NO_LIMIT - 1 - steps) + steps


def split_loss(segment: Segment) -> tuple[jax.Array, jax.Array]:
    """Each particle's loss before and after the first end of an episode in the unroll.

    Returns:
        (old, new): `old` sums the losses of the episode that was running when the
        unroll began, its ending step included; `new` sums those of all episodes that
        began inside the unroll. # shape=(N,) each
    """
    total = jnp.asarray(segment.loss).sum(0)

    def ends_inside(_: None) -> tuple[jax.Array, jax.Array]:
        step, length = _step_numbers(segment), segment.loss.shape[0]
        first_end = jnp.where(segment.ended, step, length).min(0)
        in_old = step <= first_end[None]
        old = jnp.sum(jnp.where(in_old, segment.loss, 0.0), axis=0)
        return old, jnp.sum(jnp.where(in_old, 0.0, segment.loss), axis=0)

    # In most unrolls none ends before the last step.
    return lax.cond(
        _ends_inside(segment),
        ends_inside,
        lambda _: (total, jnp.zeros_like(total)),
        None,
    )


def running_loss(before: Array, segment: Segment) -> jax.Array:
    """Loss so far of the episode running after the unroll.

    Args:
        before: Loss so far of the episode running when the unroll began. # shape=(N,)
        segment: The unroll.
    """
    total = jnp.asarray(segment.loss).sum(0)

    def ends_inside(_: None) -> jax.Array:
        step = _step_numbers(segment)
        last_end = jnp.where(segment.ended, step, -1).max(0)
        since_last_end = jnp.where(step > last_end[None], segment.loss, 0.0).sum(0)
        return since_last_end + jnp.where(last_end >= 0, 0.0, before)

    return lax.cond(
        _ends_inside(segment),
        ends_inside,
        lambda _: jnp.where(segment.ended[-1], 0.0, total + before),
        None,
    )


def _ends_inside(segment: Segment) -> jax.Array:
    """Whether any episode ends before the last step."""
    return jnp.asarray(segment.ended).any(1)[:-1].any()


def _step_numbers(segment: Segment) -> jax.Array:
    """Number of each row, 0 to K - 1. # shape=(K, N)."""
    return lax.broadcasted_iota(jnp.int32, segment.loss.shape, 0)

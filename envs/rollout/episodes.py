"""Episode bookkeeping: the one place that defines what the end of an episode means.

Both drivers, in JAX on a device and in NumPy on the host, pass every step through
`record_step`, so an early end, a time limit and a diverged simulation mean the same on
either. The functions take JAX or NumPy arrays.

Axis letters: N particles, K steps of an unroll. Particles 2p and 2p + 1 are the two
members of antithetic pair p.
"""

from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.envs.rollout.horizons import VaryingHorizon
from pes_rl.envs.rollout.observations import Array, ObservationSums

NO_LIMIT = np.iinfo(np.int32).max
"""Time limit of an episode without a horizon."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clock:
    """Number and elapsed steps of each particle's current episode.

    Attributes:
        seed: Key data of the particle's randomness, the same for the two members of a
            pair. # shape=(N, 2), dtype=uint32
        episode: Index of the current episode. # shape=(N,), dtype=int32
        elapsed: Steps of the current episode so far. # shape=(N,), dtype=int32
        limit: Time limit of the current episode, in steps. # shape=(N,), dtype=int32
    """

    seed: Array
    episode: Array
    elapsed: Array
    limit: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segment:
    """Losses and ends of episodes in one unroll of K steps by N particles.

    The loss of a step belongs to the episode in which the step was taken: where
    `ended[k, i]` is set, `loss[k, i]` is the last loss of the old episode.

    Attributes:
        loss: Loss of each step; 0 where the step was not simulated.
            # shape=(K, N), dtype=float32
        ended: Whether the episode ended with this step. # shape=(K, N), dtype=bool
        diverged: Whether it ended because the simulation diverged.
            # shape=(K, N), dtype=bool
        simulated: Whether the step was simulated: False after the end of the episode
            in an unroll of single episodes. # shape=(K, N), dtype=bool
        observations: Sums over the observations that policies acted on; None in a
            rollout that does not normalise observations.
        reward_shift: What was subtracted from the reward of each step that is simulated
            and did not diverge, where that changes between updates (and the particles'
            losses are without it); else None. # shape=(), dtype=float32

    Example:
        >>> loss, no = np.array([[3.0], [1.0]]), np.zeros((2, 1), bool)
        >>> segment = Segment(loss, ended=no, diverged=no, simulated=~no)
        >>> segment.loss.sum(0).tolist()  # of each particle
        [4.0]
    """

    loss: Array
    ended: Array
    diverged: Array
    simulated: Array
    observations: ObservationSums | None = None
    reward_shift: Array | None = None


@partial(
    jax.jit, static_argnames=("num_pairs", "horizon", "members", "stagger", "varying")
)
def start_clock(
    key: jax.Array,
    num_pairs: int,
    horizon: int | None,
    *,
    members: int = 2,
    stagger: bool = False,
    varying: VaryingHorizon | None = None,
) -> Clock:
    """Clock of `members * num_pairs` particles at the start of their first episodes.

    Args:
        key: JAX key; each pair gets one split of it.
        num_pairs: Number of pairs P.
        horizon: Time limit T of an episode, in steps; None for no limit.
        members: Particles that share a pair's randomness: 2, or 1 for evaluation.
        stagger: Spread the particles' phases over the episode: the first episode of
            pair p has a time limit of (p + 1) T / P steps. It counts as an episode.
        varying: Time limits that differ between episodes; None gives all T.

    Raises:
        ValueError: If `stagger` is set and there is no horizon, or it is none that
            int32 holds.
    """
    check_horizon(horizon)
    if stagger and horizon is None:
        raise ValueError("stagger needs a finite horizon; use stagger=False")
    seed = jax.random.key_data(jax.random.split(key, num_pairs))
    limit = np.full(num_pairs, horizon or NO_LIMIT)
    if varying is not None:
        limit = varying(seed, jnp.zeros(num_pairs, jnp.int32))
    if stagger:
        shares = np.arange(1, num_pairs + 1)
        limit = limit.__array_namespace__().maximum(shares * limit // num_pairs, 1)
    num_particles = members * num_pairs
    return Clock(
        seed=jnp.repeat(seed, members, axis=0),
        episode=jnp.zeros(num_particles, jnp.int32),
        elapsed=jnp.zeros(num_particles, jnp.int32),
        limit=jnp.repeat(jnp.asarray(limit, jnp.int32), members),
    )


def check_horizon(horizon: int | None) -> None:
    """Raise `ValueError` for a time limit that is no whole number that int32 holds."""
    if horizon is None:
        return
    if not isinstance(horizon, Integral) or not 0 < horizon <= NO_LIMIT:
        raise ValueError(
            f"horizon={horizon} must be a whole number from 1 to {NO_LIMIT}"
        )


def next_limits(
    clock: Clock, horizon: int | None, varying: VaryingHorizon | None
) -> jax.Array | int:
    """Time limits of the episodes after the clock's, or the one that all have."""
    if varying is None:
        return horizon or NO_LIMIT
    return varying(clock.seed, clock.episode + 1)


def episode_keys(seed: Array, episode: Array) -> jax.Array:
    """Key data of the episodes with these numbers: `fold_in(seed, episode)`.

    The j-th episodes of the two members of a pair get the same key, whenever each of
    them starts. shape=(N, 2), dtype=uint32.
    """
    keys = jax.random.wrap_key_data(jnp.asarray(seed))
    return jax.random.key_data(jax.vmap(jax.random.fold_in)(keys, jnp.asarray(episode)))


def episode_seeds(keys: np.ndarray) -> np.ndarray:
    """Seeds for the `reset` of an environment, below 2^31, from the episodes' keys.

    NumPy's `RandomState`, PyBullet, Box2D and most C and C++ code take no larger ones.
    A seed is the last 31 bits of the key, which are uniform for the keys of
    `episode_keys`. Two of n episodes with different keys have the same seed with a
    probability of about n^2 / 2^32: 0.02 % for 1,000 episodes, 2.3 % for 10,000. Such
    episodes begin alike; the estimate of the gradient stays valid.

    Args:
        keys: Key data of the episodes. # shape=(n, 2), dtype=uint32

    Returns:
        The seeds; the same for the same key, as the members of a pair have it.
            # shape=(n,), dtype=int64
    """
    return keys[:, 1].astype(np.int64) & (2**31 - 1)


def record_step(
    clock: Clock,
    loss: Array,
    terminated: Array,
    running: Array,
    *,
    next_limit: Array | int,
    diverged_loss: float,
) -> tuple[Clock, Segment]:
    """Record one step of every particle: advance the clock and find the ended episodes.

    A loss that is not finite means that the simulation diverged: its episode ends with
    this step, whose loss becomes `diverged_loss`.

    Args:
        clock: Before the step.
        loss: Loss of the step. # shape=(N,)
        terminated: Whether the environment itself ended the episode. # shape=(N,)
        running: Whether the particle took the step. # shape=(N,)
        next_limit: Time limit of each particle's next episode; see `next_limits`.
        diverged_loss: Loss of a step at which a simulation diverges.

    Returns:
        The clock after the step, already at the next episode where one ended, and the
        step's row of the segment, with fields of shape (N,).
    """
    xp = clock.elapsed.__array_namespace__()
    loss, diverged = replace_diverged(loss, running, diverged_loss)
    elapsed = _add_steps(clock.elapsed, running.astype(xp.int32))
    ended = running & (terminated | diverged | (elapsed >= clock.limit))
    one_if_ended = ended.astype(xp.int32)
    after = Clock(
        seed=clock.seed,
        episode=clock.episode + one_if_ended,
        elapsed=elapsed * (1 - one_if_ended),
        limit=xp.where(ended, next_limit, clock.limit),
    )
    return after, Segment(loss=loss, ended=ended, diverged=diverged, simulated=running)


def replace_diverged(
    loss: Array, running: Array, diverged_loss: float
) -> tuple[Array, Array]:
    """Losses without NaN and infinity, and which simulations diverged.

    A loss becomes `diverged_loss` where it is not finite, and 0 where the particle was
    not running. All arrays have the same shape, that of a step or of an unroll.
    """
    xp = loss.__array_namespace__()
    diverged = running & ~xp.isfinite(loss)
    return xp.where(running, xp.where(diverged, diverged_loss, loss), 0.0), diverged


def steps_to_limit(clock: Clock, running: Array) -> Array:
    """Steps until the first of the running particles reaches its limit, int32."""
    xp = clock.elapsed.__array_namespace__()
    return xp.min(xp.where(running, clock.limit - clock.elapsed, NO_LIMIT))


def advance_clock(clock: Clock, running: Array, steps: Array | int) -> Clock:
    """Advance the clock by several steps in which no episode ended.

    The result is that of `record_step` after each of them.

    Args:
        clock: Before the steps.
        running: Which particles took the steps. # shape=(N,)
        steps: Number of steps, at most `steps_to_limit` - 1.
    """
    xp = clock.elapsed.__array_namespace__()
    elapsed = _add_steps(clock.elapsed, running.astype(xp.int32) * xp.int32(steps))
    return replace(clock, elapsed=elapsed)


def _add_steps(elapsed: Array, steps: Array) -> Array:
    """Elapsed + steps, at most NO_LIMIT - 1: an endless episode never overflows."""
    xp = elapsed.__array_namespace__()
    return xp.minimum(elapsed, NO_LIMIT - 1 - steps) + steps


def split_loss(segment: Segment) -> tuple[jax.Array, jax.Array]:
    """Each particle's loss before and after the first end of an episode in the unroll.

    Returns:
        (old, new): `old` sums the losses of the episode that was current when the
        unroll started, including its last step; `new` sums those of all episodes that
        started within the unroll. # shape=(N,) each
    """
    total = jnp.asarray(segment.loss).sum(0)

    def ends_inside(_: None) -> tuple[jax.Array, jax.Array]:
        step, length = _step_numbers(segment), segment.loss.shape[0]
        first_end = jnp.where(segment.ended, step, length).min(0)
        in_old = step <= first_end[None]
        old = jnp.sum(jnp.where(in_old, segment.loss, 0.0), axis=0)
        return old, jnp.sum(jnp.where(in_old, 0.0, segment.loss), axis=0)

    # In most unrolls no episode ends before the last step, and the sum is enough.
    return lax.cond(
        _ends_inside(segment),
        ends_inside,
        lambda _: (total, jnp.zeros_like(total)),
        None,
    )


def running_loss(before: Array, segment: Segment) -> jax.Array:
    """Loss so far of the episode that is current after the unroll.

    Args:
        before: Loss so far of the episode that was current before it. # shape=(N,)
        segment: The unroll's losses and ends.
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

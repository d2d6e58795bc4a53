"""Means over time of a stream's updates, chain by chain: what statistics are made of.

Chains are independent, so an interval between them counts every correlation in time:
that of NRES's updates within an episode, of PES's updates that share perturbations, of
truncated ES's states.

All chains begin their episodes together, and time is counted in windows of as many
unrolls as the longest episode has. Where all episodes have that length, a window is
whole episodes and nothing is cut at its ends. Where episodes end early, the first
window is dropped, so that the phases are mixed in the others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.analysis.signal_stream import Setting, State, Stream, Update
from pes_rl.envs import Particles, Rollout


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """Sums over updates.

    Attributes:
        estimates: # shape=(J, C, D)
        spread: Squared distance of each chain's estimate from the mean over chains of
            the same update, with C / (C - 1): its mean over chains is the variance
            between chains. Where pairs share states: the squared norm. # shape=(J, C)
        pair_noise, pair_steps, shared_steps: As in `Update`. # shape=(C,)
    """

    estimates: Any
    spread: Any
    pair_noise: Any
    pair_steps: Any
    shared_steps: Any


@dataclass(frozen=True)
class Measured:
    """What was measured of a stream: means over its updates, in float64.

    Attributes:
        settings: The J estimators.
        shares_states: Whether the pairs of an update share a state.
        updates: Number of updates n.
        steps: Environment steps of all chains in these.
        means: Fields of `Sums`, divided by n.
    """

    settings: tuple[Setting, ...]
    shares_states: bool
    updates: int
    steps: int
    means: Sums


def measure(
    rollout: Rollout,
    theta: jax.Array,
    stream: Stream,
    chains: int,
    steps: int,
    key: jax.Array,
) -> Iterator[Measured]:
    """Run a stream until it has simulated `steps` steps; yields after each window.

    Args:
        rollout: Where particles live; episodes have a longest length.
        theta: Held fixed. # shape=(D,)
        stream: What is run.
        chains: Number of chains C.
        steps: Environment steps, at least; those of a first window that is dropped do
            not count.
        key: Of all randomness.
    """
    assert rollout.horizon is not None
    updates = -(-rollout.horizon // stream.length)
    run = _window_runner(rollout, stream, updates)
    init_key, key = jax.random.split(key)
    state = stream.init(rollout, theta, init_key, chains)
    total: Any = None
    number = counted = done = 0
    while done < steps:
        keys = jax.random.split(jax.random.fold_in(key, number), updates)
        state, sums = run(theta, state, keys)
        number += 1
        if number == 1 and not _all_ended_together(state[0]):
            continue
        sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
        total = sums if total is None else jax.tree.map(np.add, total, sums)
        counted += updates
        pairs = 2 if stream.shares_states else 1
        done += int((pairs * sums.pair_steps + sums.shared_steps).sum())
        means = jax.tree.map(lambda leaf: leaf / counted, total)  # noqa: B023
        yield Measured(stream.settings, stream.shares_states, counted, done, means)


def _all_ended_together(particles: Particles) -> bool:
    """Whether all particles are at the first step of their second episode."""
    clock = particles.clock
    elapsed, episode = np.asarray(clock.elapsed), np.asarray(clock.episode)
    return bool((elapsed == 0).all() and (episode == 1).all())


def _window_runner(
    rollout: Rollout, stream: Stream, updates: int
) -> Callable[[jax.Array, State, jax.Array], tuple[State, Sums]]:
    """The function (theta, state, keys) -> (state, sums over one window)."""

    def run_on_device(
        theta: jax.Array, state: State, keys: jax.Array
    ) -> tuple[State, Sums]:
        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            state, sums = carry
            update, state = stream.update(rollout, theta, state, key)
            return (state, _add(sums, update, stream.shares_states)), None

        update, _ = jax.eval_shape(
            lambda: stream.update(rollout, theta, state, keys[0])
        )
        (state, sums), _ = lax.scan(step, (state, _zeros(update)), keys)
        return state, sums

    def run_on_host(
        theta: jax.Array, state: State, keys: jax.Array
    ) -> tuple[State, Sums]:
        sums: Any = None
        for key in keys:
            update, state = stream.update(rollout, theta, state, key)
            sums = _zeros(update) if sums is None else sums
            sums = _add(sums, update, stream.shares_states)
        return state, sums

    return jax.jit(run_on_device) if rollout.on_device else run_on_host


def _zeros(update: Update) -> Sums:
    each, chain = update.estimates.shape, update.pair_noise.shape
    return Sums(
        jnp.zeros(each), jnp.zeros(each[:2]), *(jnp.zeros(chain) for _ in range(3))
    )


@partial(jax.jit, static_argnames="shares_states")
def _add(sums: Sums, update: Update, shares_states: bool) -> Sums:
    estimates = update.estimates
    chains = estimates.shape[1]
    if shares_states:
        spread = jnp.sum(estimates**2, axis=2)
    else:
        distance = estimates - estimates.mean(1, keepdims=True)
        spread = jnp.sum(distance**2, axis=2) * (chains / (chains - 1))
    more = Sums(
        estimates,
        spread,
        update.pair_noise,
        update.pair_steps,
        update.shared_steps,
    )
    return jax.tree.map(jnp.add, sums, more)

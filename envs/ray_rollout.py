"""The host driver spread over Ray workers, each with a slice of the antithetic pairs.

An update sends theta and a key to every worker, and to each its own particles; it draws
their perturbations from the key, and sends the particles and its columns of the segment
back. So the bytes of an update grow with the workers times the parameters, and with
the particles, and never with the particles times the parameters.

Particles and segments are put together in the particles' order, whoever was first, and
what is summed over particles is summed here: the result is the same to the bit for any
number of workers and for none, on machines that compute alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.episodes import NO_LIMIT, Clock, Segment, running_loss, start_clock
from pes_rl.envs.host import HostRollout, take_copies
from pes_rl.envs.observations import (
    ObservationMoments,
    ObservationSums,
    median,
    start_sums,
    sums_as_float32,
)
from pes_rl.envs.rollout import Particles, Rollout, Thetas

_running_loss = jax.jit(running_loss)

Call = tuple[str, tuple[Any, ...]]
"""A method of what a worker holds, and its arguments."""


class Crew(Protocol):
    """Workers that each hold one object; `RayCrew`, but for tests."""

    def __len__(self) -> int:
        """Number of workers W."""
        ...

    def share(self, value: Any) -> Any:
        """A reference to a value, for calls: it goes to each machine once."""
        ...

    def work(
        self, calls: Sequence[Call], instead: Callable[[int], Call] | None = None
    ) -> list[Any]:
        """Have worker s answer call s, for each, and replace those that are lost.

        Args:
            calls: At most one a worker.
            instead: None where any worker can answer any call: then none waits for one
                that is not there. Else the call that a new worker s is to answer in
                place of call s, which the old one was lost over.

        Returns:
            The answers, in the calls' order.
        """
        ...


@dataclass(frozen=True)
class RayRollout:
    """Rollout of host simulations by a `Crew`, whose workers hold a `SliceRollout`.

    When a worker is lost in an unroll, what happens depends on the simulations:

    - Their states can be copied (native MuJoCo): they live here between unrolls, so
      another worker does the slice again, and nothing is lost but the time.
    - They cannot (Gymnasium), and the whole slice is at the start of its episodes, as
      it always is for agents that play whole episodes: it begins them again.
    - They cannot, and there are episodes under way: these are lost. All of the slice
      sits the unroll out, so that pairs stay together, and is then at the start of new
      episodes. Their losses are 0 and their first step is not `simulated`, from which
      an estimator's own bookkeeping clears their accumulators: they wait for an episode
      that has not begun. See `Learner` for what that does to the estimate.

    Attributes:
        crew: The workers.
        horizon: Steps T after which an episode is cut.
        can_copy: Whether the simulations' states can be copied.
        normalizer: As of `HostRollout`.
    """

    crew: Crew
    horizon: int
    can_copy: bool
    normalizer: ObservationMoments | None = None

    on_device = False
    can_differentiate = False

    def differentiable(self) -> Rollout:
        raise ValueError("this environment is not written in JAX: no derivatives")

    def reset(
        self,
        key: jax.Array,
        num_pairs: int,
        *,
        members: int = 2,
        stagger: bool = False,
    ) -> Particles:
        if num_pairs > 1 and len(self.crew) > num_pairs:
            what = "pairs" if members == 2 else "particles"
            raise ValueError(
                f"workers={len(self.crew)} are more than the {num_pairs} {what} that "
                f"they share; use {num_pairs} or fewer, or more {what}"
            )
        clock = start_clock(
            key, num_pairs, self.horizon, members=members, stagger=stagger
        )
        clock = jax.tree.map(np.asarray, clock)
        calls = [
            ("begin", (_part(clock, s),)) for s in self._slices(members * num_pairs)
        ]
        instead = None if self.can_copy else calls.__getitem__
        return _join(self.crew.work(calls, instead))

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        slices = self._slices(len(particles.loss))
        sums_about = None
        if self.normalizer is not None:
            sums_about = median(particles.state.observation)
        rest = (length, single_episode, self.normalizer, sums_about)
        orders = [(*sent, *rest) for sent in self._send(thetas, slices)]
        calls = [
            ("unroll", (_part(particles, s), *order))
            for s, order in zip(slices, orders, strict=True)
        ]

        def instead(i: int) -> Call:
            clock = _part(particles.clock, slices[i])
            if not clock.elapsed.any():
                return "unroll_anew", (clock, *orders[i])
            return "sit_out", (self._next_episodes(clock), length, sums_about)

        answers = self.crew.work(calls, None if self.can_copy else instead)
        after = _join([after for after, _ in answers])
        segment = _join_segments([segment for _, segment in answers])
        loss = np.asarray(_running_loss(particles.loss, segment))
        loss = np.where(segment.simulated[0], loss, np.float32(0))
        return replace(after, loss=loss), jax.tree.map(jnp.asarray, segment)

    def normalized(self, moments: ObservationMoments) -> "RayRollout":
        return replace(self, normalizer=jax.tree.map(np.asarray, moments))

    def take(self, particles: Particles, indices: Any) -> Particles:
        return take_copies(particles, indices, self.can_copy)

    def _send(
        self, thetas: jax.Array | Thetas, slices: list[slice]
    ) -> list[tuple[Any, slice | None]]:
        """For each slice, what its thetas come from, and which rows of it they are."""
        if isinstance(thetas, Thetas):
            recipe = self.crew.share(_pack(thetas.recipe))
            return [(recipe, s) for s in slices]
        rows = np.asarray(thetas)
        return [(rows[s] if len(rows) > 1 else rows, None) for s in slices]

    def _slices(self, num_particles: int) -> list[slice]:
        """Which particles each worker has: whole pairs, as equal as can be."""
        together = 1 if num_particles % 2 else 2
        units = num_particles // together
        count = min(len(self.crew), units)
        cuts = [together * (i * units // count) for i in range(count + 1)]
        return [slice(*cut) for cut in pairwise(cuts)]

    def _next_episodes(self, clock: Clock) -> Clock:
        """At the start of each particle's next episode, or of one not lived in yet."""
        lost = clock.elapsed > 0
        limit = np.int32(self.horizon or NO_LIMIT)
        return Clock(
            seed=clock.seed,
            episode=clock.episode + lost.astype(np.int32),
            elapsed=np.zeros_like(clock.elapsed),
            limit=np.where(lost, limit, clock.limit),
        )


@dataclass(frozen=True)
class SliceRollout:
    """What a worker holds: a host rollout of the particles that it is given.

    Attributes:
        rollout: Without a normaliser.
    """

    rollout: HostRollout

    def begin(self, clock: Clock) -> Particles:
        return self.rollout.begin(clock)

    def unroll(
        self,
        particles: Particles,
        thetas: Any,
        rows: slice | None,
        length: int,
        single_episode: bool,
        moments: ObservationMoments | None,
        sums_about: np.ndarray | None,
    ) -> tuple[Particles, Segment]:
        if rows is not None:
            thetas = np.asarray(_unpack(thetas)(rows=rows))
        rollout = replace(self.rollout, normalizer=moments, reference=sums_about)
        after, segment = rollout.unroll(
            particles, thetas, length, single_episode=single_episode
        )
        return after, jax.tree.map(np.asarray, segment)

    def unroll_anew(self, clock: Clock, *order: Any) -> tuple[Particles, Segment]:
        """An unroll from the start of the particles' running episodes."""
        return self.unroll(self.begin(clock), *order)

    def sit_out(
        self, clock: Clock, length: int, sums_about: np.ndarray | None
    ) -> tuple[Particles, Segment]:
        """Begin these episodes, and an unroll in which nothing is simulated."""
        particles = self.begin(clock)
        observation = particles.state.observation
        nothing = np.zeros((length, len(observation)), bool)
        sums = None
        if sums_about is not None:
            sums = sums_as_float32(start_sums(observation, sums_about))
        loss = nothing.astype(np.float32)
        return particles, Segment(loss, nothing, nothing, nothing, sums)


def _part(tree: Any, rows: slice) -> Any:
    """Particles, or what belongs to them, of a slice."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[rows]), tree)


def _join(parts: list[Particles]) -> Particles:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _join_segments(parts: list[Segment]) -> Segment:
    sums = [part.observations for part in parts if part.observations is not None]
    columns = [replace(part, observations=None) for part in parts]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *columns)
    if not sums:
        return joined
    total, square = (
        np.concatenate([getattr(each, name) for each in sums])
        for name in ("total", "square")
    )
    return replace(
        joined, observations=ObservationSums(sums[0].reference, total, square)
    )


@dataclass(frozen=True)
class _KeyData:
    """A JAX key on its way."""

    data: np.ndarray


def _pack(recipe: Any) -> Any:
    """The recipe without JAX's arrays, which are bound to this process's devices."""

    def pack(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _KeyData(np.asarray(jax.random.key_data(leaf)))
        return np.asarray(leaf)

    return jax.tree.map(pack, recipe)


def _unpack(recipe: Any) -> Any:
    def unpack(leaf: Any) -> Any:
        if isinstance(leaf, _KeyData):
            return jax.random.wrap_key_data(jnp.asarray(leaf.data))
        return leaf

    return jax.tree.map(unpack, recipe)

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

from pes_rl.envs.ray.worker_rollout import pack
from pes_rl.envs.rollout.base import EngineLost, Particles, Rollout, Thetas
from pes_rl.envs.rollout.episodes import (
    NO_LIMIT,
    Clock,
    Segment,
    running_loss,
    start_clock,
)
from pes_rl.envs.rollout.host import take_copies
from pes_rl.envs.rollout.observations import (
    ObservationMoments,
    ObservationSums,
    empty_sums,
    median,
    sums_as_float32,
)

_running_loss = jax.jit(running_loss)

Call = tuple[str, tuple[Any, ...]]
"""A method of what a worker holds, and its arguments."""


class WorkerPool(Protocol):
    """Workers that each hold one object; `RayWorkerPool`, but for tests."""

    def __len__(self) -> int:
        """Number of workers W."""
        ...

    def share(self, value: Any) -> Any:
        """A reference to a value, for calls, or the value itself if it is small.

        So what is large goes to each machine once.
        """
        ...

    def work(
        self,
        calls: Sequence[Call],
        instead: Callable[[int], Call | None] | None = None,
        *,
        allow_reassignment: bool = False,
    ) -> list[Any]:
        """Have worker s answer call s, for each, and replace those that are lost.

        Args:
            calls: At most one a worker.
            instead: None where any worker can answer any call. Else the call that is to
                be answered in place of call s by a worker that has not answered those
                before it, a new one for example; None if there is no such call.
            allow_reassignment: Whether, where worker s is not there, another can answer
                `instead(s)`, though not its own next call then.

        Returns:
            The answers, in the calls' order; None where no worker was there for a call,
            or was lost over it, and no other could answer.
        """
        ...


@dataclass(frozen=True)
class RayRollout:
    """Rollout of host simulations by the workers of a `WorkerPool`.

    When a worker is lost in an unroll, or is not there yet, what happens depends on the
    simulations:

    - Their states can be copied (native MuJoCo): they live here between unrolls, so
      another worker does the slice, and nothing is lost but the time.
    - They cannot (Gymnasium), and all are at the start of episodes that end within the
      unroll, as they are for agents that play whole episodes: another worker begins
      the slice's episodes and plays them.
    - They cannot, and there are episodes under way: these are lost. All of the slice
      sits the unroll out, so that pairs stay together, and stands before new episodes,
      until its worker is there. Its losses are 0 and its first step is not `simulated`,
      from which an estimator's own bookkeeping clears the accumulators: they wait for
      an episode that has not begun. See `Learner` for what that does to the estimate.

    Attributes:
        pool: The workers.
        horizon: Steps T after which an episode is cut.
        can_copy: Whether the simulations' states can be copied.
        normalizer: As of `HostRollout`.
    """

    pool: WorkerPool
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
        if num_pairs > 1 and len(self.pool) > num_pairs:
            what = "pairs" if members == 2 else "particles"
            raise ValueError(
                f"workers={len(self.pool)} are more than the {num_pairs} {what} that "
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
        answers = self.pool.work(calls, instead)
        return _join(
            [
                _not_begun(_like(answers), call[1][0]) if answer is None else answer
                for call, answer in zip(calls, answers, strict=True)
            ]
        )

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        slices = self._slices(len(particles.loss))
        sums_reference = None
        if self.normalizer is not None:
            sums_reference = median(particles.state.observation)
        rest = (length, single_episode, self.normalizer, sums_reference)
        orders = [(*sent, *rest) for sent in self._send(thetas, slices)]
        parts = [_part(particles, s) for s in slices]
        calls = [
            ("unroll", (part, *order))
            for part, order in zip(parts, orders, strict=True)
        ]

        def anew(i: int) -> Call | None:
            if parts[i].clock.elapsed.any():
                return None
            return "unroll_from_start", (parts[i].clock, *orders[i])

        whole_episodes = (
            single_episode
            and length >= (self.horizon or NO_LIMIT)
            and not particles.clock.elapsed.any()
        )
        answers = self.pool.work(
            calls, None if self.can_copy else anew, allow_reassignment=whole_episodes
        )
        answers = [
            self._skip_unroll(part, length, sums_reference)
            if answer is None
            else answer
            for part, answer in zip(parts, answers, strict=True)
        ]
        after = _join([after for after, _ in answers])
        joined = _join_segments([segment for _, segment in answers])
        segment = jax.tree.map(jnp.asarray, joined)
        loss = np.asarray(_running_loss(particles.loss, segment))
        loss = np.where(joined.simulated[0], loss, np.float32(0))
        return replace(after, loss=loss), segment

    def normalized(self, moments: ObservationMoments) -> "RayRollout":
        return replace(self, normalizer=jax.tree.map(np.asarray, moments))

    def take(self, particles: Particles, indices: Any) -> Particles:
        return take_copies(particles, indices, self.can_copy)

    def _send(
        self, thetas: jax.Array | Thetas, slices: list[slice]
    ) -> list[tuple[Any, slice | None]]:
        """For each slice, what its thetas come from, and which rows of it they are."""
        if isinstance(thetas, Thetas):
            recipe = self.pool.share(pack(thetas.recipe))
            return [(recipe, s) for s in slices]
        rows = np.asarray(thetas)
        return [(rows[s] if len(rows) > 1 else rows, None) for s in slices]

    def _slices(self, num_particles: int) -> list[slice]:
        """Which particles each worker has: whole pairs, as equal as can be."""
        together = 1 if num_particles % 2 else 2
        units = num_particles // together
        count = min(len(self.pool), units)
        cuts = [together * (i * units // count) for i in range(count + 1)]
        return [slice(*cut) for cut in pairwise(cuts)]

    def _skip_unroll(
        self, particles: Particles, length: int, sums_reference: np.ndarray | None
    ) -> tuple[Particles, Segment]:
        """An unroll in which nothing is simulated, and the next episodes after it."""
        after = _not_begun(particles, self._next_episodes(particles.clock))
        nothing = np.zeros((length, len(particles.loss)), bool)
        sums = None
        if sums_reference is not None:
            observation = particles.state.observation
            sums = sums_as_float32(empty_sums(observation, sums_reference))
        loss = nothing.astype(np.float32)
        return after, Segment(loss, nothing, nothing, nothing, sums)

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


def _part(tree: Any, rows: slice) -> Any:
    """Particles, or what belongs to them, of a slice."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[rows]), tree)


def _not_begun(like: Particles, clock: Clock) -> Particles:
    """Particles before the episodes that the clock names: no simulations, no losses.

    Args:
        like: Particles whose states are of the same kind.
        clock: For M particles.
    """
    count = len(clock.episode)
    state = jax.tree.map(
        lambda leaf: np.zeros((count, *leaf.shape[1:]), leaf.dtype), like.state
    )
    return Particles(state, clock, np.zeros(count, np.float32))


def _like(answers: list[Any]) -> Particles:
    """Particles that some worker has begun.

    Raises:
        EngineLost: If none has.
    """
    for answer in answers:
        if answer is not None:
            return answer
    raise EngineLost("all Ray workers were lost before any simulation had begun")


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

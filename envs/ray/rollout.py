"""The host rollout distributed over Ray workers, each with a share of the pairs.

An update sends theta and a random key to every worker, and its own particles to each.
The worker draws the perturbations from the key, unrolls, and returns the particles and
its columns of the segment. So the traffic of an update grows with workers times
parameters and with particles, but not with particles times parameters.

Particles and segments are joined in the order of the particles, and sums over particles
are computed here: the result is the same to the bit for any number of workers, and for
none, on machines with the same arithmetic.
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
    Array,
    Clock,
    Segment,
    next_limits,
    running_loss,
    start_clock,
)
from pes_rl.envs.rollout.horizons import VaryingHorizon
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
"""Name of a method of the object that a worker holds, and its arguments."""


class WorkerPool(Protocol):
    """Workers that each hold one object; `RayWorkerPool`, or a local one in tests."""

    def __len__(self) -> int:
        """Number of workers W."""
        ...

    def share(self, value: Any) -> Any:
        """A reference to a value for use in calls, or the value itself if it is small.

        A large value is then sent to each machine once.
        """
        ...

    def work(
        self,
        calls: Sequence[Call],
        fallback: Callable[[int], Call | None] | None = None,
        *,
        allow_reassignment: bool = False,
    ) -> list[Any]:
        """Let worker s answer call s, for all calls, and replace lost workers.

        Args:
            calls: At most one call per worker.
            fallback: None where any worker can answer any call. Otherwise a function of
                s: the call to make in place of call s to a worker that has not answered
                the calls before it, such as a new worker; None if there is none.
            allow_reassignment: Whether another worker may answer `fallback(s)` while
                worker s is missing. That worker then cannot answer its own next call.

        Returns:
            The answers in the order of the calls; None where the worker was missing or
            lost and no other worker could answer.
        """
        ...


@dataclass(frozen=True)
class RayRollout:
    """Rollout of host simulations by the workers of a `WorkerPool`.

    When a worker is lost in an unroll, or has not started yet, the result depends on
    the simulations:

    - States can be copied (native MuJoCo): they are here between unrolls, so another
      worker computes the share, and only time is lost.
    - States cannot be copied (Gymnasium), and all particles are at the start of
      episodes that end within the unroll, as for agents that play whole episodes:
      another worker starts and plays these episodes.
    - States cannot be copied, and episodes are running: these are lost. The whole share
      skips the unroll, so that pairs stay together, and waits at the start of new
      episodes until its worker has started. Its losses are 0 and its first step is not
      `simulated`, so the estimator clears its accumulators. docs/lost_particles.md has
      the effect on the estimate.

    Attributes:
        pool: The workers.
        horizon: Steps T after which an episode is cut.
        can_copy: Whether the simulations' states can be copied.
        varying_horizon: Same as in `DeviceRollout`.
        normalizer: Same as in `HostRollout`.
    """

    pool: WorkerPool
    horizon: int
    can_copy: bool
    varying_horizon: VaryingHorizon | None = None
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
            key,
            num_pairs,
            self.horizon,
            members=members,
            stagger=stagger,
            varying=self.varying_horizon,
        )
        clock = jax.tree.map(np.asarray, clock)
        calls = [
            ("begin", (_part(clock, s),)) for s in self._slices(members * num_pairs)
        ]
        fallback = None if self.can_copy else calls.__getitem__
        answers = self.pool.work(calls, fallback)
        return _join(
            [
                _waiting_particles(_first_answer(answers), call[1][0])
                if answer is None
                else answer
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
        common = (length, single_episode, self.normalizer, sums_reference)
        arguments = [(*sent, *common) for sent in self._send(thetas, slices)]
        parts = [_part(particles, s) for s in slices]
        calls = [
            ("unroll", (part, *own)) for part, own in zip(parts, arguments, strict=True)
        ]

        def restart(i: int) -> Call | None:
            if parts[i].clock.elapsed.any():
                return None
            return "unroll_from_start", (parts[i].clock, *arguments[i])

        whole_episodes = (
            single_episode
            and length >= (self.horizon or NO_LIMIT)
            and not particles.clock.elapsed.any()
        )
        answers = self.pool.work(
            calls, None if self.can_copy else restart, allow_reassignment=whole_episodes
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

    def observations(self, particles: Particles) -> Array:
        return particles.state.observation

    def take(self, particles: Particles, indices: Any) -> Particles:
        return take_copies(particles, indices, self.can_copy)

    def _send(
        self, thetas: jax.Array | Thetas, slices: list[slice]
    ) -> list[tuple[Any, slice | None]]:
        """For each share: the recipe or rows of its thetas, and the rows to draw."""
        if isinstance(thetas, Thetas):
            recipe = self.pool.share(pack(thetas.recipe))
            return [(recipe, s) for s in slices]
        rows = np.asarray(thetas)
        return [(rows[s] if len(rows) > 1 else rows, None) for s in slices]

    def _slices(self, num_particles: int) -> list[slice]:
        """The particles of each worker: whole pairs, in shares of nearly equal size."""
        unit = 1 if num_particles % 2 else 2
        units = num_particles // unit
        count = min(len(self.pool), units)
        cuts = [unit * (i * units // count) for i in range(count + 1)]
        return [slice(*cut) for cut in pairwise(cuts)]

    def _skip_unroll(
        self, particles: Particles, length: int, sums_reference: np.ndarray | None
    ) -> tuple[Particles, Segment]:
        """The result of an unroll in which nothing is simulated."""
        after = _waiting_particles(particles, self._next_episodes(particles.clock))
        no_steps = np.zeros((length, len(particles.loss)), bool)
        sums = None
        if sums_reference is not None:
            observation = particles.state.observation
            sums = sums_as_float32(empty_sums(observation, sums_reference))
        loss = no_steps.astype(np.float32)
        return after, Segment(loss, no_steps, no_steps, no_steps, sums)

    def _next_episodes(self, clock: Clock) -> Clock:
        """The clock at the start of each particle's next episode without steps."""
        lost = clock.elapsed > 0
        limit = np.asarray(next_limits(clock, self.horizon, self.varying_horizon))
        return Clock(
            seed=clock.seed,
            episode=clock.episode + lost.astype(np.int32),
            elapsed=np.zeros_like(clock.elapsed),
            limit=np.where(lost, limit, clock.limit).astype(np.int32),
        )


def _part(tree: Any, rows: slice) -> Any:
    """The rows of one share."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[rows]), tree)


def _waiting_particles(like: Particles, clock: Clock) -> Particles:
    """Particles without simulations, at the start of the episodes of the clock.

    Args:
        like: Particles with states of the same structure.
        clock: Clock of M particles.
    """
    count = len(clock.episode)
    state = jax.tree.map(
        lambda leaf: np.zeros((count, *leaf.shape[1:]), leaf.dtype), like.state
    )
    return Particles(state, clock, np.zeros(count, np.float32))


def _first_answer(answers: list[Any]) -> Particles:
    """The first answer that is not None.

    Raises:
        EngineLost: If there is none.
    """
    for answer in answers:
        if answer is not None:
            return answer
    raise EngineLost("all Ray workers were lost before any simulation had started")


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

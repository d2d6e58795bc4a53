"""The host driver: a Python loop over batched steps of a simulator in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.base import Particles, Rollout, Thetas, rows_of
from pes_rl.envs.rollout.environment import HostEnvironment, loss_from_reward
from pes_rl.envs.rollout.episodes import (
    Array,
    Clock,
    Segment,
    advance_clock,
    episode_keys,
    record_step,
    running_loss,
    start_clock,
    steps_to_limit,
)
from pes_rl.envs.rollout.observations import (
    ObservationMoments,
    add_observations,
    empty_sums,
    sums_as_float32,
)

_running_loss = jax.jit(running_loss)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HostState:
    """Simulations between two unrolls, and what their policies see next.

    Attributes:
        simulation: As the environment's `save` returns it.
        observation: Observation that the next action answers. # shape=(N, O)
    """

    simulation: Any
    observation: np.ndarray


@dataclass(frozen=True)
class HostRollout:
    """Rollout of policies in a `HostEnvironment`: loss = reward_shift - reward.

    Attributes:
        environment: The environment.
        act: Maps (thetas [N, D], observations [N, O]) to actions [N, A], in NumPy.
        horizon: Steps T after which an episode is cut.
        diverged_loss: Loss of the step at which a simulation diverges.
        reward_shift: As of `problem.PolicyProblem`.
        normalizer: The same, in NumPy.
        reference: What sums of observations are taken about, where these particles are
            some of all; None takes their median. # shape=(1, O)
    """

    environment: HostEnvironment
    act: Callable[[Any, Any], Any]
    horizon: int
    diverged_loss: float = 0.0
    reward_shift: float = 0.0
    normalizer: ObservationMoments | None = None
    reference: np.ndarray | None = None

    on_device = False
    can_differentiate = False

    @property
    def can_copy(self) -> bool:
        return self.environment.can_copy

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
        clock = start_clock(
            key, num_pairs, self.horizon, members=members, stagger=stagger
        )
        return self.begin(jax.tree.map(np.asarray, clock))

    def begin(self, clock: Clock) -> Particles:
        """Particles at the start of the episodes that the clock, in NumPy, names."""
        num_particles = len(clock.episode)
        self.environment.allocate(num_particles)
        everyone = np.arange(num_particles)
        keys = _EpisodeKeys(clock)(clock, everyone)
        observation = self.environment.reset(everyone, keys)
        state = HostState(self.environment.save(), observation)
        return Particles(state, clock, np.zeros(num_particles, np.float32))

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        self.environment.load(particles.state.simulation)
        clock, observation = particles.clock, particles.state.observation.copy()
        # In the observations' precision once, or every step would convert them again.
        parameters = np.asarray(rows_of(thetas), dtype=observation.dtype)
        parameters = np.broadcast_to(parameters, (len(observation), len(parameters[0])))
        running, ids = np.ones(len(observation), bool), None
        keys = _EpisodeKeys(clock)
        rows = _blank_segment(length, len(observation))
        # Booking is a third of the loop's own time, and few steps end an episode: the
        # clock stands still until one may, with `passed` steps to make up for.
        passed, to_limit = 0, steps_to_limit(clock, running)
        sums = (
            None if self.normalizer is None else empty_sums(observation, self.reference)
        )
        for k in range(length):
            if sums is not None:
                sums = add_observations(sums, observation, running)
            loss, terminated = self._step(parameters, observation, ids)
            # In the segment's precision: what overflows there has diverged.
            with np.errstate(over="ignore"):
                rows.loss[k] = loss
            rows.simulated[k] = running
            passed += 1
            finite = np.isfinite(rows.loss[k]).all()
            if passed < to_limit and finite and not terminated.any():
                continue
            clock, row = record_step(
                advance_clock(clock, running, passed - 1),
                rows.loss[k],
                terminated,
                running,
                horizon=self.horizon,
                diverged_loss=self.diverged_loss,
            )
            _write_row(rows, k, row)
            if row.ended.any():
                ended = np.flatnonzero(row.ended)
                observation[ended] = self.environment.reset(ended, keys(clock, ended))
                if single_episode:
                    running = running & ~row.ended
                    ids = np.flatnonzero(running)
                    if not len(ids):
                        break
            passed, to_limit = 0, steps_to_limit(clock, running)
        clock = advance_clock(clock, running, passed)
        after = Particles(
            HostState(self.environment.save(), observation),
            clock,
            np.asarray(_running_loss(particles.loss, rows)),
        )
        if sums is not None:
            rows = replace(rows, observations=sums_as_float32(sums))
        return after, jax.tree.map(jnp.asarray, rows)

    def normalized(self, moments: ObservationMoments) -> "HostRollout":
        return replace(self, normalizer=jax.tree.map(np.asarray, moments))

    def take(self, particles: Particles, indices: Any) -> Particles:
        return take_copies(particles, indices, self.can_copy)

    def _step(
        self, thetas: np.ndarray, observation: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step the particles `ids` (None for all), updating `observation` in place.

        Returns:
            (loss, terminated) of all N particles; 0 and False for those that stand.
        """
        if ids is None:
            actions = self._act(thetas, observation)
            observation[:], reward, terminated = self.environment.step(actions, None)
            return _loss(
                observation, loss_from_reward(reward, self.reward_shift)
            ), terminated
        loss, terminated = np.zeros(len(thetas)), np.zeros(len(thetas), bool)
        actions = self._act(_rows_at(thetas, ids), observation[ids])
        observation[ids], reward, terminated[ids] = self.environment.step(actions, ids)
        loss[ids] = _loss(observation[ids], loss_from_reward(reward, self.reward_shift))
        return loss, terminated

    def _act(self, thetas: np.ndarray, observation: np.ndarray) -> np.ndarray:
        if self.normalizer is not None:
            observation = self.normalizer.normalize(observation)
        return self.act(thetas, observation)


def take_copies(particles: Particles, indices: Any, can_copy: bool) -> Particles:
    """Copies of the particles `indices`, their simulations included.

    Raises:
        ValueError: If the simulations' states cannot be copied.
    """
    if not can_copy:
        raise ValueError(
            "this environment's state cannot be copied; use an agent that needs no "
            "copies, such as pes or es"
        )
    return jax.tree.map(lambda leaf: leaf[np.asarray(indices)], particles)


def _rows_at(thetas: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The rows `ids`; no copies of one that all share."""
    return thetas[: len(ids)] if thetas.strides[0] == 0 else thetas[ids]


class _EpisodeKeys:
    """Keys of the particles' coming episodes, a few episodes at a time.

    Asking JAX costs as much as a step of 64 simple simulations; and always for all
    particles, so that one compilation serves.
    """

    AHEAD = 8

    def __init__(self, clock: Clock) -> None:
        self._seed, self._first = clock.seed, clock.episode
        self._keys: np.ndarray | None = None

    def __call__(self, clock: Clock, ids: np.ndarray) -> np.ndarray:
        """Key data of the running episode of each of `ids`, [n, 2]."""
        ahead = clock.episode[ids] - self._first[ids]
        if self._keys is None or ahead.max() >= self.AHEAD:
            self._first = clock.episode
            self._keys = np.asarray(_keys_ahead(self._seed, self._first, self.AHEAD))
            ahead = np.zeros_like(ids)
        return self._keys[ahead, ids]


@partial(jax.jit, static_argnums=2)
def _keys_ahead(seed: Array, episode: Array, count: int) -> jax.Array:
    """Key data of the next `count` episodes of each particle, [count, N, 2]."""
    ahead = jnp.arange(count, dtype=jnp.int32)
    return jax.vmap(lambda k: episode_keys(seed, episode + k))(ahead)


def _loss(observation: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The loss, or NaN where an observation is not finite. # shape=(N,)."""
    finite = np.isfinite(observation)
    if finite.all():
        return loss
    return np.where(finite.all(1), loss, np.nan)


def _blank_segment(length: int, num_particles: int) -> Segment:
    shape = (length, num_particles)
    return Segment(
        loss=np.zeros(shape, np.float32),
        ended=np.zeros(shape, bool),
        diverged=np.zeros(shape, bool),
        simulated=np.zeros(shape, bool),
    )


def _write_row(rows: Segment, k: int, row: Segment) -> None:
    rows.loss[k] = row.loss
    rows.ended[k] = row.ended
    rows.diverged[k] = row.diverged
    rows.simulated[k] = row.simulated

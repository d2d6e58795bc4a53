"""The host driver: a Python loop over batched steps of a simulator."""

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
    next_limits,
    record_step,
    running_loss,
    start_clock,
    steps_to_limit,
)
from pes_rl.envs.rollout.horizons import VaryingHorizon
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
    """The simulations between two unrolls, and their latest observations.

    Attributes:
        simulation: What the environment's `save` returned.
        observation: Input of the policies for the next action. # shape=(N, O)
    """

    simulation: Any
    observation: np.ndarray


@dataclass(frozen=True)
class HostRollout:
    """Rollout of policies in a `HostEnvironment`; see `loss_from_reward`.

    Attributes:
        environment: The environment.
        act: Maps (thetas [N, D], observations [N, O]) to actions [N, A], in NumPy.
        horizon: Time limit T of an episode, in steps.
        diverged_loss: Loss of the step at which a simulation diverges.
        reward_shift: Constant subtracted from every reward; see `PolicyProblem`.
        varying_horizon: Same as in `DeviceRollout`.
        normalizer: Moments that normalise the observations, as NumPy arrays; None
            leaves observations unchanged.
        reference: Reference of the sums of observations, given where these particles
            are a part of the population; None takes their median. # shape=(1, O)

    Example:
        >>> from pes_rl.agents import Policy
        >>> from pes_rl.envs import make
        >>> pendulum = make("inverted_pendulum", num_threads=1)
        >>> policy = Policy(4, (-3.0,), (3.0,))
        >>> rollout = HostRollout(pendulum, policy.act, horizon=1000)
        >>> particles = rollout.reset(jax.random.key(0), num_pairs=1)
        >>> thetas = np.zeros((2, policy.num_parameters), np.float32)
        >>> particles, segment = rollout.unroll(particles, thetas, length=3)
        >>> segment.loss.sum(0).tolist()  # a reward of 1 at each step
        [-3.0, -3.0]
    """

    environment: HostEnvironment
    act: Callable[..., Any]
    horizon: int
    diverged_loss: float = 0.0
    reward_shift: float = 0.0
    varying_horizon: VaryingHorizon | None = None
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
            key,
            num_pairs,
            self.horizon,
            members=members,
            stagger=stagger,
            varying=self.varying_horizon,
        )
        return self.start_episodes(jax.tree.map(np.asarray, clock))

    def start_episodes(self, clock: Clock) -> Particles:
        """Particles at the start of the clock's episodes; the clock is in NumPy."""
        num_particles = len(clock.episode)
        self.environment.allocate(num_particles)
        ids = np.arange(num_particles)
        observation = self.environment.reset(ids, _EpisodeKeys(clock)(clock, ids))
        state = HostState(self.environment.save(), observation)
        return Particles(state, clock, np.zeros(num_particles, np.float32))

    # What overflows, in the policy or as a loss in float32, is recorded as diverged.
    @np.errstate(over="ignore", invalid="ignore")
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
        # Converted to the observations' precision here, not at every step.
        parameters = np.asarray(rows_of(thetas), dtype=observation.dtype)
        parameters = np.broadcast_to(parameters, (len(observation), len(parameters[0])))
        running, ids = np.ones(len(observation), bool), None
        keys = _EpisodeKeys(clock)
        rows = _empty_segment(length, len(observation))
        # Recording a step takes a third of the loop's own time, and few steps end an
        # episode. So the clock advances only where an episode may end; `unrecorded`
        # counts the steps since then.
        unrecorded, to_limit = 0, steps_to_limit(clock, running)
        sums = (
            None if self.normalizer is None else empty_sums(observation, self.reference)
        )
        for k in range(length):
            if sums is not None:
                sums = add_observations(sums, observation, running)
            loss, terminated = self._step(parameters, observation, ids)
            rows.loss[k] = loss
            rows.simulated[k] = running
            unrecorded += 1
            finite = np.isfinite(rows.loss[k]).all()
            if unrecorded < to_limit and finite and not terminated.any():
                continue
            clock, row = record_step(
                advance_clock(clock, running, unrecorded - 1),
                rows.loss[k],
                terminated,
                running,
                next_limit=self._next_limits(clock),
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
            unrecorded, to_limit = 0, steps_to_limit(clock, running)
        clock = advance_clock(clock, running, unrecorded)
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

    def observations(self, particles: Particles) -> Array:
        return particles.state.observation

    def take(self, particles: Particles, indices: Any) -> Particles:
        return take_copies(particles, indices, self.can_copy)

    def _next_limits(self, clock: Clock) -> Any:
        limits = next_limits(clock, self.horizon, self.varying_horizon)
        return limits if isinstance(limits, int) else np.asarray(limits)

    def _step(
        self, thetas: np.ndarray, observation: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step the particles `ids` (None for all), updating `observation` in place.

        Returns:
            (loss, terminated) of all N particles; 0 and False for those not stepped.
        """
        if ids is None:
            actions = self._act(thetas, observation, None)
            observation[:], reward, terminated = self.environment.step(actions, None)
            return self._loss(reward, observation), terminated
        loss, terminated = np.zeros(len(thetas)), np.zeros(len(thetas), bool)
        actions = self._act(_rows_at(thetas, ids), observation[ids], ids)
        observation[ids], reward, terminated[ids] = self.environment.step(actions, ids)
        loss[ids] = self._loss(reward, observation[ids])
        return loss, terminated

    def _loss(self, reward: np.ndarray, observation: np.ndarray) -> np.ndarray:
        """Losses, NaN where the observation is not finite. # shape=(n,)."""
        loss, finite = (
            loss_from_reward(reward, self.reward_shift),
            np.isfinite(observation),
        )
        return loss if finite.all() else np.where(finite.all(1), loss, np.nan)

    def _act(
        self, thetas: np.ndarray, observation: np.ndarray, ids: np.ndarray | None
    ) -> np.ndarray:
        """Actions of the particles `ids` (None for all), whose rows are given."""
        del ids
        return self.act(thetas, self._normalize(observation))

    def _normalize(self, observation: np.ndarray) -> np.ndarray:
        if self.normalizer is None:
            return observation
        return self.normalizer.normalize(observation)


def take_copies(particles: Particles, indices: Any, can_copy: bool) -> Particles:
    """Copies of the particles at `indices`, including their simulations.

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
    """The rows `ids`; a single row that all particles share is not copied."""
    return thetas[: len(ids)] if thetas.strides[0] == 0 else thetas[ids]


class _EpisodeKeys:
    """Keys of the particles' next episodes, computed for several episodes at once.

    One call of JAX takes as long as a step of 64 simple simulations. Keys are always
    computed for all particles, so that the shapes, and the compiled function, stay the
    same.
    """

    AHEAD = 8

    def __init__(self, clock: Clock) -> None:
        self._seed, self._first = clock.seed, clock.episode
        self._keys: np.ndarray | None = None

    def __call__(self, clock: Clock, ids: np.ndarray) -> np.ndarray:
        """Key data of the current episodes of the n particles `ids`, [n, 2]."""
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


def _empty_segment(length: int, num_particles: int) -> Segment:
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

"""The device driver: `lax.scan` over `vmap` of a problem written in JAX."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pes_rl.envs.rollout.base import Particles, Thetas, rows_of
from pes_rl.envs.rollout.environment import PolicyProblem, Problem
from pes_rl.envs.rollout.episodes import (
    NO_LIMIT,
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
from pes_rl.envs.rollout.loops import any_of_all_runs, apply_if, scan_while
from pes_rl.envs.rollout.observations import (
    ObservationMoments,
    ObservationSums,
    add_observations,
    empty_sums,
    median,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Carry:
    """Carry of the loop over the steps of an unroll.

    Attributes:
        state: The problem's states.
        clock: The clock after the first `recorded` steps. It advances only where an
            episode may end.
        recorded: Number of steps that the clock includes.
        limit: Number of the step at which the first episode reaches its time limit.
        running: Which particles still run; None where all run to the end.
        next_start: First state of each particle's next episode, drawn in advance.
        next_start_used: Whether that state is used and must be drawn again.
        observations: Sums over the observations; None without normalisation.
        ended, diverged: As in the segment. # shape=(K, N)
    """

    state: Any
    clock: Clock
    recorded: Array
    limit: Array
    running: Array | None
    next_start: Any
    next_start_used: Array
    observations: ObservationSums | None
    ended: Array
    diverged: Array


StepOutput = tuple[jax.Array, Array | None]  # loss of a step, which particles ran


@dataclass(frozen=True)
class DeviceRollout:
    """Rollout of a `Problem` on JAX devices.

    Attributes:
        problem: The problem.
        horizon: Time limit T of an episode, in steps; None for no limit.
        diverged_loss: Loss of the step at which a simulation diverges.
        reverse_mode: Use only operations that JAX differentiates in reverse mode. That
            is slower: states are copied at each step, and the loop runs all K steps
            even if all particles have finished.
        varying_horizon: Time limits that differ between episodes, `horizon` the
            longest; None gives all the same.
        axis: Name of the mesh axis over which the particles are sharded, where this
            rollout unrolls one shard; see `ShardedRollout`.

    Example:
        >>> from pes_rl.envs import make
        >>> rollout = DeviceRollout(make("unrolled:toy-regression"), horizon=100)
        >>> particles = rollout.reset(jax.random.key(0), num_pairs=4)
        >>> thetas = jnp.full((8, 2), -4.0)
        >>> particles, segment = rollout.unroll(particles, thetas, length=20)
        >>> segment.loss.shape, particles.clock.elapsed.tolist()
        ((20, 8), [20, 20, 20, 20, 20, 20, 20, 20])
    """

    problem: Problem
    horizon: int | None
    diverged_loss: float = 0.0
    reverse_mode: bool = False
    varying_horizon: VaryingHorizon | None = None
    axis: str | None = None

    on_device = True
    can_copy = True

    @property
    def can_differentiate(self) -> bool:
        return getattr(self.problem, "differentiable", True)

    def differentiable(self) -> "DeviceRollout":
        if not self.can_differentiate:
            raise ValueError("this problem has no useful derivatives")
        return replace(self, reverse_mode=True)

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
        state = self._first_states(clock.seed, clock.episode)
        return Particles(state, clock, jnp.zeros(members * num_pairs, jnp.float32))

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        parameters = rows_of(thetas)
        carry = self._first_carry(particles, length, single_episode)

        def step(carry: _Carry, k: jax.Array) -> tuple[_Carry, StepOutput]:
            return self._step(carry, k, parameters)

        if self.reverse_mode:
            steps = jnp.arange(length, dtype=jnp.int32)
            carry, (loss, simulated) = lax.scan(step, carry, steps)
        else:
            carry, (loss, simulated) = scan_while(_has_running, step, carry, length)
        if simulated is None:
            simulated = jnp.ones_like(loss, bool)
        segment = Segment(
            loss, carry.ended, carry.diverged, simulated, carry.observations
        )
        # Particles that have stopped have no steps left to record.
        clock = advance_clock(carry.clock, _running(carry), length - carry.recorded)
        running = running_loss(particles.loss, segment)
        return Particles(carry.state, clock, running), segment

    def normalized(self, moments: ObservationMoments) -> "DeviceRollout":
        if not isinstance(self.problem, PolicyProblem):
            raise ValueError(
                "normalize_observations is for policies in environments, and what is "
                "unrolled here has no observations; use normalize_observations=False"
            )
        return replace(self, problem=replace(self.problem, normalizer=moments))

    def observations(self, particles: Particles) -> Array:
        if not isinstance(self.problem, PolicyProblem):
            raise ValueError("what is unrolled here has no observations")
        _, observation = particles.state
        return observation

    def take(self, particles: Particles, indices: Any) -> Particles:
        indices = jnp.asarray(indices)
        return jax.tree.map(lambda leaf: leaf[indices], particles)

    def _first_states(self, seed: Array, episode: Array) -> Any:
        keys = jax.random.wrap_key_data(episode_keys(seed, episode))
        return jax.vmap(self.problem.init)(keys)

    def _empty_sums(self, state: Any) -> ObservationSums | None:
        problem = self.problem
        if not isinstance(problem, PolicyProblem) or problem.normalizer is None:
            return None
        _, observation = state
        reference = median(observation)
        if self.axis is not None:  # one reference for all shards
            reference = median(lax.all_gather(reference, self.axis, tiled=True))
        return empty_sums(observation, reference)

    def _first_carry(
        self, particles: Particles, length: int, single_episode: bool
    ) -> _Carry:
        num_particles = particles.loss.shape[0]
        all_true = jnp.ones(num_particles, bool)
        nowhere = jnp.zeros((length, num_particles), bool)
        # First states can take as long to draw as a step, and most steps end no
        # episode: none is drawn until an episode ends.
        return _Carry(
            state=particles.state,
            clock=particles.clock,
            recorded=jnp.int32(0),
            limit=steps_to_limit(particles.clock, all_true),
            running=all_true if single_episode else None,
            next_start=particles.state,
            next_start_used=all_true,
            observations=self._empty_sums(particles.state),
            ended=nowhere,
            diverged=nowhere,
        )

    def _step(
        self, carry: _Carry, k: jax.Array, thetas: jax.Array
    ) -> tuple[_Carry, StepOutput]:
        observations = carry.observations
        if observations is not None:
            _, observation = carry.state
            observations = add_observations(observations, observation, _running(carry))
        if len(thetas) < len(carry.next_start_used):
            step = jax.vmap(partial(self.problem.step, thetas[0]))
            state, loss, terminated = step(carry.state)
        else:
            state, loss, terminated = jax.vmap(self.problem.step)(thetas, carry.state)
        if carry.running is not None:
            state = _select(carry.running, state, carry.state)
            terminated = terminated & carry.running
            loss = jnp.where(carry.running, loss, 0.0)
        after = replace(carry, state=state, observations=observations)

        def record(before: tuple[_Carry, jax.Array]) -> tuple[_Carry, jax.Array]:
            return self._record(*before, k, terminated)

        # A sum is finite only if all its terms are, and is cheaper than to test each.
        has_end = jnp.any(terminated) | ~jnp.isfinite(loss.sum())
        may_end = (k + 1 >= carry.limit) | has_end
        after, loss = apply_if(may_end, record, (after, loss), self.reverse_mode)
        return after, (loss, carry.running)

    def _record(
        self,
        carry: _Carry,
        loss: jax.Array,
        k: jax.Array,
        terminated: jax.Array,
    ) -> tuple[_Carry, jax.Array]:
        """Record step k and the unrecorded steps before it; start the next episodes.

        Returns:
            The carry after step k, and the losses of the step as recorded.
        """
        running = _running(carry)
        clock, row = record_step(
            advance_clock(carry.clock, running, k - carry.recorded),
            loss,
            terminated,
            running,
            next_limit=next_limits(carry.clock, self.horizon, self.varying_horizon),
            diverged_loss=self.diverged_loss,
        )
        must_draw = jnp.any(row.ended & carry.next_start_used)
        # Where an episode ended the clock is already at the next one.
        upcoming = jnp.where(row.ended, clock.episode, clock.episode + 1)
        next_start = apply_if(
            must_draw,
            lambda _: self._first_states(clock.seed, upcoming),
            carry.next_start,
            self.reverse_mode,
        )
        used = jnp.where(must_draw, False, carry.next_start_used) | row.ended
        if carry.running is not None:
            running = running & ~row.ended
        after = replace(
            carry,
            state=_select(row.ended, next_start, carry.state),
            clock=clock,
            recorded=k + 1,
            limit=jnp.minimum(steps_to_limit(clock, running), NO_LIMIT - k - 1) + k + 1,
            running=None if carry.running is None else running,
            next_start=next_start,
            next_start_used=used,
            ended=carry.ended.at[k].set(row.ended),
            diverged=carry.diverged.at[k].set(row.diverged),
        )
        return after, jnp.asarray(row.loss)


def _running(carry: _Carry) -> Array:
    if carry.running is None:
        return jnp.ones(carry.clock.elapsed.shape, bool)
    return carry.running


def _has_running(carry: _Carry) -> jax.Array | None:
    """Whether any particle still runs; None where all run to the end."""
    return None if carry.running is None else any_of_all_runs(carry.running)


def _select(mask: jax.Array, yes: Any, no: Any) -> Any:
    """For each particle the leaves of `yes` where its mask is set, else of `no`."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)

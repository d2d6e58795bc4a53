"""The device driver: `lax.scan` over `vmap` of a problem written in JAX."""

from collections.abc import Callable
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
    record_step,
    running_loss,
    start_clock,
    steps_to_limit,
)
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
    """What the loop over steps carries.

    The clock stands still until an episode may end: `recorded` steps are in it, and one
    reaches its limit with step number `limit`. `running` is None where all particles
    run throughout. `spare` holds a first state for each particle's next episode, good
    until it is used. `observations` is None where they are not normalised. `ended` and
    `diverged` are the segment's.
    """

    state: Any
    clock: Clock
    recorded: Array
    limit: Array
    running: Array | None
    spare: Any
    spare_used: Array
    observations: ObservationSums | None
    ended: Array
    diverged: Array


Row = tuple[jax.Array, Array | None]  # of a step: its loss, and who was running


@dataclass(frozen=True)
class DeviceRollout:
    """Rollout of a `Problem` on JAX devices.

    Attributes:
        problem: The problem.
        horizon: Steps T after which an episode is cut, or None for no limit.
        diverged_loss: Loss of the step at which a simulation diverges.
        reverse_mode: Unroll by nothing but what JAX differentiates in reverse, which
            costs: states are copied at each step, and finished particles wait for all
            K steps to pass.
        axis: Mesh axis over which the particles are cut into shares, where this
            unrolls one of them; see `sharding`.
    """

    problem: Problem
    horizon: int | None
    diverged_loss: float = 0.0
    reverse_mode: bool = False
    axis: str | None = None

    on_device = True
    can_copy = True

    @property
    def can_differentiate(self) -> bool:
        return getattr(self.problem, "differentiable", True)

    def differentiable(self) -> "DeviceRollout":
        if not self.can_differentiate:
            raise ValueError("this problem's derivatives say nothing")
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
            key, num_pairs, self.horizon, members=members, stagger=stagger
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
        carry = self._start(particles, length, single_episode)

        def step(carry: _Carry, k: jax.Array) -> tuple[_Carry, Row]:
            return self._step(carry, k, parameters)

        if self.reverse_mode:
            steps = jnp.arange(length, dtype=jnp.int32)
            carry, (loss, simulated) = lax.scan(step, carry, steps)
        else:
            carry, (loss, simulated) = _scan_while_running(step, carry, length)
        if simulated is None:
            simulated = jnp.ones_like(loss, bool)
        segment = Segment(
            loss, carry.ended, carry.diverged, simulated, carry.observations
        )
        # Who is not running has no steps to book: the last one did so.
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

    def take(self, particles: Particles, indices: Any) -> Particles:
        indices = jnp.asarray(indices)
        return jax.tree.map(lambda leaf: leaf[indices], particles)

    def _first_states(self, seed: Array, episode: Array) -> Any:
        keys = jax.random.wrap_key_data(episode_keys(seed, episode))
        return jax.vmap(self.problem.init)(keys)

    def _start_sums(self, state: Any) -> ObservationSums | None:
        problem = self.problem
        if not isinstance(problem, PolicyProblem) or problem.normalizer is None:
            return None
        _, observation = state
        reference = median(observation)
        if self.axis is not None:  # one reference for all shares
            reference = median(lax.all_gather(reference, self.axis, tiled=True))
        return empty_sums(observation, reference)

    def _start(self, particles: Particles, length: int, single_episode: bool) -> _Carry:
        num_particles = particles.loss.shape[0]
        everyone = jnp.ones(num_particles, bool)
        nowhere = jnp.zeros((length, num_particles), bool)
        # No first states are drawn until an episode ends: they can cost as much as a
        # step, and in most steps nothing ends.
        return _Carry(
            state=particles.state,
            clock=particles.clock,
            recorded=jnp.int32(0),
            limit=steps_to_limit(particles.clock, everyone),
            running=everyone if single_episode else None,
            spare=particles.state,
            spare_used=everyone,
            observations=self._start_sums(particles.state),
            ended=nowhere,
            diverged=nowhere,
        )

    def _step(
        self, carry: _Carry, k: jax.Array, thetas: jax.Array
    ) -> tuple[_Carry, Row]:
        observations = carry.observations
        if observations is not None:
            _, observation = carry.state
            observations = add_observations(observations, observation, _running(carry))
        if len(thetas) < len(carry.spare_used):
            step = jax.vmap(partial(self.problem.step, thetas[0]))
            state, loss, terminated = step(carry.state)
        else:
            state, loss, terminated = jax.vmap(self.problem.step)(thetas, carry.state)
        if carry.running is not None:
            state = _select(carry.running, state, carry.state)
            terminated = terminated & carry.running
            loss = jnp.where(carry.running, loss, 0.0)
        after = replace(carry, state=state, observations=observations)

        def book(booking: tuple[_Carry, jax.Array]) -> tuple[_Carry, jax.Array]:
            return self._record(*booking, k, terminated)

        # A sum is finite only if all of it is, and costs less than to look at each.
        ends_itself = jnp.any(terminated) | ~jnp.isfinite(loss.sum())
        may_end = (k + 1 >= carry.limit) | ends_itself
        when = _cond if self.reverse_mode else _when
        after, loss = when(may_end, book, (after, loss))
        return after, (loss, carry.running)

    def _record(
        self,
        carry: _Carry,
        loss: jax.Array,
        k: jax.Array,
        terminated: jax.Array,
    ) -> tuple[_Carry, jax.Array]:
        """Book step k and the steps passed before it; begin what follows what ended.

        Returns:
            The carry after it and the step's losses as they are recorded.
        """
        running = _running(carry)
        clock, row = record_step(
            advance_clock(carry.clock, running, k - carry.recorded),
            loss,
            terminated,
            running,
            horizon=self.horizon,
            diverged_loss=self.diverged_loss,
        )
        out_of_spares = jnp.any(row.ended & carry.spare_used)
        # The next episode begins here or, for the other particles, later.
        upcoming = jnp.where(row.ended, clock.episode, clock.episode + 1)
        when = _cond if self.reverse_mode else _when
        spare = when(
            out_of_spares,
            lambda _: self._first_states(clock.seed, upcoming),
            carry.spare,
        )
        spare_used = jnp.where(out_of_spares, False, carry.spare_used) | row.ended
        if carry.running is not None:
            running = running & ~row.ended
        after = replace(
            carry,
            state=_select(row.ended, spare, carry.state),
            clock=clock,
            recorded=k + 1,
            limit=jnp.minimum(steps_to_limit(clock, running), NO_LIMIT - k - 1) + k + 1,
            running=None if carry.running is None else running,
            spare=spare,
            spare_used=spare_used,
            ended=carry.ended.at[k].set(row.ended),
            diverged=carry.diverged.at[k].set(row.diverged),
        )
        return after, jnp.asarray(row.loss)


def _running(carry: _Carry) -> Array:
    if carry.running is None:
        return jnp.ones(carry.clock.elapsed.shape, bool)
    return carry.running


@jax.custom_batching.custom_vmap
def _any(mask: jax.Array) -> jax.Array:
    """Whether any is set; of all runs where several are vmapped.

    So a loop has one condition for all of them. With one of each run it would choose,
    at each of its steps, for each run between all that it carries before and after.
    """
    return jnp.any(mask)


@_any.def_vmap
def _any_of_all(size: int, batched: list[bool], mask: jax.Array) -> tuple[Any, bool]:
    del size, batched
    return _any(mask), False


def _when(condition: jax.Array, change: Callable[[Any], Any], tree: Any) -> Any:
    """`change(tree)` if the condition holds, else `tree`.

    A loop of one trip at most: it leaves an unchanged tree where it lies, while
    `lax.cond` copies it, which costs a few percent of a step. Where several runs are
    vmapped, the tree of each is changed if the condition holds for any of them; what is
    changed here is then the same, for a run whose condition does not hold.
    """
    return lax.while_loop(
        lambda carry: carry[0],
        lambda carry: (jnp.zeros((), bool), change(carry[1])),
        (_any(condition), tree),
    )[1]


def _cond(condition: jax.Array, change: Callable[[Any], Any], tree: Any) -> Any:
    """`_when` that has a reverse mode, as a loop has not."""
    return lax.cond(condition, change, lambda tree: tree, tree)


def _select(mask: jax.Array, yes: Any, no: Any) -> Any:
    """Tree of `yes` where the particle's mask is set, else of `no`."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)


def _scan_while_running(
    step: Callable[[_Carry, jax.Array], tuple[_Carry, Row]], carry: _Carry, length: int
) -> tuple[_Carry, Row]:
    """As `lax.scan(step)` over steps 0 to `length` - 1, until no particle is running.

    The rows that were not reached stay zero, as those of a stopped particle are.
    """
    row = jax.eval_shape(step, carry, jnp.int32(0))[1]
    blank = jax.tree.map(lambda r: jnp.zeros((length, *r.shape), r.dtype), row)

    def unfinished(loop: tuple[jax.Array, _Carry, Row]) -> jax.Array:
        k, carry, _ = loop
        on = k < length
        return on if carry.running is None else on & _any(carry.running)

    def body(loop: tuple[jax.Array, _Carry, Row]) -> tuple[jax.Array, _Carry, Row]:
        k, carry, rows = loop
        carry, row = step(carry, k)
        rows = jax.tree.map(lambda all, one: all.at[k].set(one), rows, row)
        return k + 1, carry, rows

    _, carry, rows = lax.while_loop(unfinished, body, (jnp.int32(0), carry, blank))
    return carry, rows

"""The training step: a gradient estimate, then a step of the optimiser."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.agents import (
    AdaptiveSigma,
    Estimator,
    PerturbingEstimator,
    Report,
    normalize_by_return_std,
)
from pes_rl.agents.core.chunks import without_chunks
from pes_rl.envs import EngineLost, ObservationMoments, Rollout
from pes_rl.envs.gymnasium.results import BrokenEnvironment
from pes_rl.envs.rollout.sharding import mesh_of, replicate, shard_particles
from pes_rl.envs.rollout.shifted import ShiftedRollout
from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.learner.schedules import Schedule, value_at


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of training: everything that is needed to resume a run.

    Attributes:
        theta: Mean parameters of the policy. # shape=(D,), dtype=float32
        optimizer: State of the optax optimiser.
        estimator: State of the gradient estimator, its particles included.
        key: Key data of the run's randomness; folded, never consumed.
            # shape=(2,), dtype=uint32
        updates: Updates so far. # shape=(), dtype=int32
        steps: Environment steps so far, as two 32-bit words, the lower first. A float32
            could not count single updates after 1e8 steps. # shape=(2,), dtype=uint32
        observations: Moments of all observations that training acted on, where
            observations are normalised; else None.
    """

    theta: jax.Array
    optimizer: Any
    estimator: Any
    key: jax.Array
    updates: jax.Array
    steps: jax.Array
    observations: ObservationMoments | None = None


class Learner:
    """Trains theta on a rollout.

    On a device rollout, `run` is one jitted scan over updates; on a host rollout it is
    a Python loop around jitted arithmetic. On a rollout that is sharded over devices,
    the arrays of a particle stay on its device, while theta, the optimiser's state and
    the reports are replicated.

    Args:
        rollout: The rollout that simulates the particles.
        estimator: Estimates the gradient of the loss.
        optimizer: How theta moves along the estimate.
        total_timesteps: Environment steps that the schedules take: the budget, or more.
        final_sigma: Standard deviation of the perturbations at the end of the budget,
            approached geometrically; or a function of the progress, which then is the
            whole schedule. None keeps the estimator's. The estimates stay unbiased for
            the smoothed loss, which approaches the loss as sigma falls.
        observations: Normalise observations by running moments that start with these;
            None leaves observations as they are.
        idle_steps: Returns the environment steps so far that were simulated although no
            segment holds them; None where there are none.
        reward_shift: Subtracted from the rewards of each update, as a function of the
            progress; None leaves the rollout's as they are.

    Raises:
        ValueError: If the optimiser or the schedule needs a sigma and the estimator has
            none or adapts it, or if chunks of the population are asked for on several
            devices.
    """

    def __init__(
        self,
        rollout: Rollout,
        estimator: Estimator,
        optimizer: OptimizerConfig,
        total_timesteps: int,
        final_sigma: float | Schedule | None = None,
        observations: ObservationMoments | None = None,
        idle_steps: Callable[[], int] | None = None,
        reward_shift: Schedule | None = None,
    ) -> None:
        if isinstance(final_sigma, float | int) and not final_sigma > 0:
            raise ValueError(f"final_sigma={final_sigma} must be above 0, or None")
        self._rollout = normalize_if_tracked(rollout, observations)
        self._mesh = mesh_of(rollout)
        if self._mesh is not None:
            estimator = without_chunks(estimator)
        self._observations = observations
        self._estimator = estimator
        self._sigma = None
        self._adapts_sigma = isinstance(estimator, AdaptiveSigma)
        if self._adapts_sigma:
            if final_sigma is not None:
                raise ValueError(
                    "sigma adapts (sigma_learning_rate) and has a schedule; drop one"
                )
        elif isinstance(estimator, PerturbingEstimator):
            self._sigma = estimator.sigma
        elif final_sigma is not None or optimizer.normalize_returns:
            raise ValueError(
                "final_sigma and normalize_returns are for estimators that perturb "
                f"theta, and {type(estimator).__name__} does not; drop them"
            )
        self._final_sigma = self._sigma if final_sigma is None else final_sigma
        self._optimizer = optimizer
        self._reward_shift = reward_shift
        self._idle_steps, self._idle_before = idle_steps, 0
        self._broken: BrokenEnvironment | None = None
        self._total_timesteps = float(total_timesteps)  # May be above 2^31.
        self._transform = optimizer.transform()
        self._apply_step_jitted = jax.jit(self._apply_step)
        self._scan_jitted = jax.jit(self._scan, static_argnames="num_updates")

    @property
    def on_device(self) -> bool:
        """Whether whole updates run on a device, as one compiled program."""
        return self._rollout.on_device

    def max_steps_per_update(self) -> int:
        """Environment steps that one update simulates, at most."""
        return self._estimator.max_steps(self._rollout.horizon)

    def init(self, theta: jax.Array, key: jax.Array) -> TrainState:
        """The state before the first update; the key is consumed."""
        self._broken = None
        init = self._init if self._mesh is None else jax.jit(self._init)
        return init(theta, key)

    def _init(self, theta: jax.Array, key: jax.Array) -> TrainState:
        estimator_key, run_key = jax.random.split(key)
        state = TrainState(
            theta=theta,
            optimizer=self._transform.init(theta),
            estimator=self._estimator.init(self._rollout, theta, estimator_key),
            key=jax.random.key_data(run_key),
            updates=jnp.zeros((), jnp.int32),
            steps=jnp.zeros(2, jnp.uint32),
            observations=self._observations,
        )
        return self._placed(state)

    def _placed(self, state: TrainState) -> TrainState:
        """The state with each array on the devices where it belongs."""
        everywhere = replicate(replace(state, estimator=None), self._mesh)
        return replace(
            everywhere, estimator=shard_particles(state.estimator, self._mesh)
        )

    @property
    def saves_particles(self) -> bool:
        """Whether a checkpoint holds the particles' simulations."""
        return self._rollout.can_copy

    def resume(self, restored: TrainState) -> TrainState:
        """The state to continue with after a checkpoint.

        Where simulations cannot be restored, the particles start new episodes. What
        has adapted stays.
        """
        if self.saves_particles:
            return restored
        run_key = jax.random.wrap_key_data(restored.key)
        key = jax.random.fold_in(jax.random.fold_in(run_key, restored.updates), 1)
        fresh = self._estimator.init(self._rollout, restored.theta, key)
        if hasattr(fresh, "adopt"):
            fresh = fresh.adopt(restored.estimator)
        return replace(restored, estimator=fresh)

    def progress(self, state: TrainState) -> jax.Array:
        """Share of the budget of environment steps that is used so far."""
        low, high = state.steps.astype(jnp.float32)
        return (low + high * 2.0**32) / self._total_timesteps

    def learning_rate(self, state: TrainState) -> jax.Array:
        """Learning rate of the next update."""
        return self._optimizer.learning_rate_at(self.progress(state))

    def sigma(self, state: TrainState) -> jax.Array | None:
        """Standard deviation of the next update's perturbations; None without any.

        Where each parameter has its own, the root of their mean square.
        """
        if self._adapts_sigma:
            return state.estimator.mean_sigma()
        if self._sigma is None or self._final_sigma is None:
            return None
        if callable(self._final_sigma):
            return value_at(self._final_sigma, self.progress(state))
        progress = jnp.minimum(self.progress(state), 1.0)
        return self._sigma * (self._final_sigma / self._sigma) ** progress

    def reward_shift(self, state: TrainState) -> jax.Array | None:
        """What the next update subtracts from rewards; None where nothing changes."""
        if self._reward_shift is None:
            return None
        return value_at(self._reward_shift, self.progress(state))

    def run(self, state: TrainState, num_updates: int) -> tuple[TrainState, Report]:
        """Take several updates.

        Returns:
            (state, reports): the reports' fields stacked, leading axis `num_updates`;
            less if the engine was lost, or an environment broke, after fewer; the next
            call then raises.

        Raises:
            EngineLost: If it was lost in the first of them.
            BrokenEnvironment: If an environment broke in it.
        """
        if self._rollout.on_device:
            return self._scan_jitted(state, num_updates=num_updates)
        if self._broken is not None:
            raise self._broken
        reports = []
        for _ in range(num_updates):
            try:
                state, report = self._update(state, self._apply_step_jitted)
            except EngineLost:
                if not reports:
                    raise
                break  # The updates before it are recorded; the next call raises too.
            except BrokenEnvironment as error:
                if not reports:
                    raise
                self._broken = error  # Its simulations may step on, from nowhere.
                break
            reports.append(report)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)

    def _scan(self, state: TrainState, num_updates: int) -> tuple[TrainState, Report]:
        def update(state: TrainState, _: None) -> tuple[TrainState, Report]:
            state, report = self._update(state, self._apply_step)
            return self._placed(state), report

        state, reports = lax.scan(update, state, length=num_updates)
        return state, replicate(reports, self._mesh)

    def _update(self, state: TrainState, apply_step: Any) -> tuple[TrainState, Report]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.updates)
        estimator: Any = self._estimator
        sigma = self.sigma(state)
        if sigma is not None and not self._adapts_sigma:
            estimator = replace(estimator, sigma=sigma)
        rollout = normalize_if_tracked(self._rollout, state.observations)
        shift = self.reward_shift(state)
        if shift is not None:
            rollout = ShiftedRollout(rollout, shift)
        gradient, estimator_state, report = estimator.estimate(
            rollout, state.theta, state.estimator, key
        )
        report = self._count_idle_steps(report)
        if self._rollout.on_device or np.asarray(report.arrived).all():
            state = apply_step(state, gradient, report, sigma)
        else:
            state = self._step_without_lost(state, gradient, report, sigma)
        return replace(state, estimator=estimator_state), report

    def _step_without_lost(
        self,
        state: TrainState,
        gradient: jax.Array,
        report: Report,
        sigma: jax.Array | None,
    ) -> TrainState:
        """The step of an update in which some particles were lost with their worker.

        The estimate, a mean over N particles with 0 for the lost ones, is multiplied by
        N / M for the M that arrived. It stays unbiased unless a perturbation caused the
        loss (`docs/lost_particles.md`). If none arrived, theta stays as it is.
        """
        arrived = np.asarray(report.arrived)
        if not arrived.any():
            return replace(state, updates=state.updates + 1)
        gradient = gradient * (len(arrived) / arrived.sum())
        of_arrived = replace(report, particle_loss=report.particle_loss[arrived])
        return self._apply_step_jitted(state, gradient, of_arrived, sigma)

    def _count_idle_steps(self, report: Report) -> Report:
        if self._idle_steps is None:
            return report
        before, self._idle_before = self._idle_before, self._idle_steps()
        idle = jnp.int32(self._idle_before - before)
        return replace(report, env_steps=report.env_steps + idle)

    def _apply_step(
        self,
        state: TrainState,
        gradient: jax.Array,
        report: Report,
        sigma: jax.Array | None,
    ) -> TrainState:
        if self._optimizer.normalize_returns:
            gradient = normalize_by_return_std(
                gradient, report.particle_loss, sigma, report.loss_std
            )
        rate = self.learning_rate(state)
        direction: Any
        direction, optimizer = self._transform.update(
            gradient, state.optimizer, state.theta
        )
        low = state.steps[0] + report.env_steps.astype(jnp.uint32)
        high = state.steps[1] + (low < state.steps[0]).astype(jnp.uint32)
        decay = self._optimizer.weight_decay
        observations = state.observations
        if observations is not None:
            assert report.observations is not None  # a normalised rollout's
            observations = observations.merge(report.observations)
        return replace(
            state,
            theta=state.theta - rate * (direction + decay * state.theta),
            optimizer=optimizer,
            updates=state.updates + 1,
            steps=jnp.stack([low, high]),
            observations=observations,
        )


def normalize_if_tracked(
    rollout: Rollout, observations: ObservationMoments | None
) -> Rollout:
    """The rollout with observations normalised by these moments, if there are any."""
    return rollout if observations is None else rollout.normalized(observations)

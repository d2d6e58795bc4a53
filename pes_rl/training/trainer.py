"""A training run from its first update to its summary."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Literal

import jax
import numpy as np

from pes_rl.assembly.assemble import assemble
from pes_rl.assembly.assembly import Assembly
from pes_rl.config.adaptive import budget_warning
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import EngineLost
from pes_rl.envs.gymnasium.results import BrokenEnvironment
from pes_rl.envs.rollout.environment import return_from_loss
from pes_rl.learner.evaluation import Evaluation
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.runtime.multihost import is_first, on_host, run_on_all_or_raise
from pes_rl.runtime.progress import Progress
from pes_rl.training.callbacks import Callback
from pes_rl.training.evaluations import Evaluations, EvaluationStopped
from pes_rl.training.lockstep import Steps, run_alone
from pes_rl.training.metrics import (
    distributions,
    evaluation_row,
    returns_so_far,
    summarize,
    training_row,
)
from pes_rl.training.recorder import Recorder, check_same_settings
from pes_rl.training.result import Result
from pes_rl.training.stopping import StopRequests
from pes_rl.training.video_callback import VideoCallback


class Trainer:
    """One training run, new or resumed: the loop of updates and evaluations.

    What it leaves on disk is the `Recorder`'s work.

    Args:
        config: The settings.
        folder: Folder of the run.
        resume: Resume from the folder's newest checkpoint, or from the one at this
            number of environment steps; None starts a new run.
        assembly: Environment, learner and evaluators made for such settings; None makes
            them.
        callbacks: Called in this order.

    Attributes:
        vectorization: How simulations are stepped, in words, where there is a choice.
        failure: Why the run could not continue, if it could not. Its folder is then
            complete up to the last update, and the run can be resumed.

    Raises:
        ValueError: If the settings do not fit the environment, the folder cannot be
            used, or there is no checkpoint to resume from.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        resume: Literal["newest"] | int | None = None,
        assembly: Assembly | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._config = config
        check_same_settings(config)
        # Before anything imports MuJoCo, which reads MUJOCO_GL only then.
        films = config.video_interval is not None and is_first()
        video = run_on_all_or_raise(lambda: [VideoCallback(config)] if films else [])
        self._callbacks = [*video, *callbacks]
        self._stop_requests = StopRequests()
        self.failure: str | None = None
        self._particle_returns = np.empty(0)  # of the last unroll
        self._parts = assembly or run_on_all_or_raise(lambda: assemble(config))
        self._owns_parts = assembly is None
        self._lost_before = self._parts.lost_workers()
        policy_key, learner_key, eval_key = jax.random.split(
            jax.random.key(config.seed), 3
        )
        learner = self._parts.learner
        state = learner.init(self._parts.init_theta(policy_key), learner_key)
        self._recorder = Recorder(folder, resume, state, config.track)
        self._counters = self._recorder.counters
        self._evaluations = Evaluations(eval_key, self._counters)
        if resume is None:
            self._counters.next_checkpoint = config.checkpoint_interval
        restored = self._recorder.restored
        self._state = state if restored is None else learner.resume(restored)
        self._recorder.write_config(config, self.vectorization, self._parts.functions)
        self._start = time.perf_counter() - self._counters.wall_seconds

    @property
    def vectorization(self) -> str | None:
        """How simulations are stepped, in words, where there is a choice."""
        return self._parts.vectorization

    @property
    def has_saved(self) -> bool:
        """Whether anything of the run has been written: policy, checkpoint, summary."""
        return self._recorder.has_saved

    @property
    def timesteps(self) -> int:
        """Environment steps so far."""
        return self._counters.timesteps

    @property
    def policy(self) -> TrainedPolicy | TrainedParameters:
        """What is trained, as it is now."""
        return self._parts.describe(self._state.theta, self._state.observations)

    def request_stop(self, reason: str = "a callback") -> None:
        """End the run after the current update, as at the end of its budget."""
        self._stop_requests.stop(reason)

    def interrupt(self, reason: str) -> None:
        """End the run after the current update; safe in a signal handler."""
        self._stop_requests.interrupt(reason)
        self._parts.interrupt()

    def stop_evaluation(self) -> None:
        """Stop an evaluation in progress; for a signal handler of the main thread."""
        self._evaluations.stop()

    def request_checkpoint(self) -> None:
        """Save a checkpoint after the current update."""
        self._counters.next_checkpoint = self._counters.timesteps

    def log_video(self, tag: str, pictures: Sequence[np.ndarray], fps: float) -> None:
        """Show an animated picture in TensorBoard."""
        self._recorder.log_video(tag, pictures, fps)

    def evaluate(self) -> Evaluation:
        """Play fresh episodes with the mean policy as it is; the run is unaffected."""
        return self._evaluations.extra(self._parts.evaluate, self._state)

    def run(self) -> Result:
        """Train until the budget, the threshold, a stop or an interruption."""
        try:
            return run_alone(self.steps())
        finally:
            if self._owns_parts:
                self._parts.close()

    def steps(self, output: IO[str] | None = None) -> Steps[Result]:
        """The run as a generator that leaves updates and evaluations to the caller.

        It yields each as a `partial` of the learner's `run` or of an evaluator, and is
        sent its value; an error of the computation is to be thrown back. Progress goes
        to `output`, or to standard output.
        """
        try:
            return (yield from self._train(output))
        finally:
            self._recorder.close()

    def _train(self, output: IO[str] | None) -> Steps[Result]:
        config = self._config
        label = f"{config.env} {config.agent} seed {config.seed}"
        budget, silent = config.total_timesteps, not is_first()
        with Progress(label, budget, "steps", silent, output) as progress:
            self._recorder.report = progress.say
            if self._counters.iterations and not self._parts.learner.saves_particles:
                progress.say(
                    "the simulations could not be saved: every particle begins a new "
                    "episode"
                )
            steps = self._parts.learner.max_steps_per_update()
            if warning := budget_warning(config, steps):
                progress.say(f"warning: {warning}")
            if self._counters.is_evaluation_due:
                # The first one, or one that a signal stopped.
                row = self._recorder.row_to_complete()
                yield from self._evaluate_and_log(row, progress)
            while not self._is_over():
                try:
                    yield from self._advance(progress)
                except (EngineLost, BrokenEnvironment) as error:
                    if not self._stop_requests.is_interrupt_requested:
                        self.failure = str(error)
                    self._count_lost_workers()
                    broken = isinstance(error, BrokenEnvironment)
                    self.interrupt("the environment" if broken else "lost workers")
            return (yield from self._finish(progress))

    def _is_over(self) -> bool:
        """Whether the run is at its end, for whatever reason."""
        solved = self._counters.timesteps_to_threshold is not None
        asked = self._stop_requests.agree(solved and self._config.stop_at_threshold)
        return asked or self._counters.timesteps >= self._config.total_timesteps

    def _advance(self, progress: Progress) -> Steps[None]:
        """Take the updates between two rows of the log, and log them."""
        config, counters, learner = self._config, self._counters, self._parts.learner
        left = config.total_timesteps - counters.timesteps
        updates_left = -(-left // learner.max_steps_per_update())
        start = time.perf_counter()
        num_updates = min(config.log_interval, updates_left)
        compiling = "compiling the update and " if learner.on_device else ""
        updates = "an update" if num_updates == 1 else f"{num_updates} updates"
        with progress.waiting_once(f"{compiling}taking {updates}"):
            state, reports = yield partial(
                learner.run, self._state, num_updates=num_updates
            )
        reports = jax.tree.map(np.asarray, reports)
        if not np.isfinite(on_host(state.theta)).all():
            self._stop_at_last_finite_theta(len(reports.env_steps))
            return
        self._state = state
        counters.add_updates(reports, time.perf_counter() - start)
        self._count_lost_workers()
        self._particle_returns = return_from_loss(reports.particle_loss[-1])
        row = training_row(self._state, reports, counters, learner, config.reward_shift)
        if counters.is_evaluation_due:
            yield from self._evaluate_and_log(row, progress)
        else:
            self._log(row, progress)
        if counters.timesteps >= counters.next_checkpoint:
            counters.schedule_checkpoint(config.checkpoint_interval)
            self._save_checkpoint()

    def _stop_at_last_finite_theta(self, num_updates: int) -> None:
        """Stop with the state of the last row of the log; the updates are dropped."""
        self.failure = (
            f"the parameters are no longer finite after {num_updates} more updates; "
            f"the run ends with those at {self.timesteps:,} environment steps. A "
            "smaller learning_rate or weight_decay may help"
        )
        self.interrupt("parameters that are not finite")

    def _count_lost_workers(self) -> None:
        lost = self._parts.lost_workers()
        self._counters.lost_workers += lost - self._lost_before
        self._lost_before = lost

    def _evaluate_and_log(
        self, row: dict[str, float], progress: Progress
    ) -> Steps[None]:
        try:
            evaluation = yield from self._evaluations.attempt(
                self._parts.evaluate,
                self._state,
                progress,
                f"{self._config.eval_episodes} episodes",
            )
        except EvaluationStopped:  # It stays due, for the resumed run.
            self._log(row, progress)
            return
        self._counters.schedule_evaluation(self._config.eval_interval)
        if evaluation is None:
            self._log(row, progress)
            return
        self._record_evaluation(evaluation, progress)
        self._log(
            {**row, **evaluation_row(evaluation)},
            progress,
            distributions(self._state, self._particle_returns, self._parts.horizon),
        )
        for callback in self._callbacks:
            callback.on_evaluation(self, evaluation)

    def _record_evaluation(self, evaluation: Evaluation, progress: Progress) -> bool:
        """Record an evaluation and the best policy; returns whether it counts."""
        threshold = self._config.threshold
        mean = self._evaluations.record(evaluation, threshold, progress.say)
        if mean is not None:
            self._recorder.save_best(self.policy, mean)
        return mean is not None

    def _log(
        self,
        row: dict[str, float],
        progress: Progress,
        values: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._update_wall_seconds()
        row = self._recorder.log(row, values)
        progress.update(self._counters.timesteps, returns_so_far(self._counters))
        for callback in self._callbacks:
            callback.on_log(self, row)

    def _save_checkpoint(self) -> None:
        self._update_wall_seconds()
        self._recorder.save_checkpoint(self._state, self.policy)

    def _finish(self, progress: Progress) -> Steps[Result]:
        """Last checkpoint, final evaluation (unless interrupted) and summary."""
        final = None
        self._save_checkpoint()
        self._is_over()  # Requests that came during the save count.
        if not self._stop_requests.is_interruption:
            with contextlib.suppress(EvaluationStopped):
                final = yield from self._evaluations.attempt(
                    self._parts.evaluate_finally,
                    self._state,
                    progress,
                    f"the final {self._config.final_eval_episodes} episodes",
                )
            self._is_over()
        if final is not None and not self._record_evaluation(final, progress):
            final = None
        self._update_wall_seconds()
        summary = summarize(
            self._config,
            self._counters,
            final,
            interrupted=self._stop_requests.is_interruption,
            ended_by=self._stop_requests.reason or "the budget",
        )
        return self._recorder.finish(summary, self.policy)

    def _update_wall_seconds(self) -> None:
        self._counters.wall_seconds = time.perf_counter() - self._start

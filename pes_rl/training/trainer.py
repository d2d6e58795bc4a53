"""A training run from its first update to its summary."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import IO, Literal

import jax
import numpy as np

from pes_rl.assembly.assemble import Assembly, assemble
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import EngineLost
from pes_rl.learner.evaluation import Evaluation, Evaluator
from pes_rl.run_folder.policy_files import TrainedParameters, TrainedPolicy
from pes_rl.run_folder.writer import open_folder
from pes_rl.runtime.multihost import all_or_none, check_alike, is_first
from pes_rl.runtime.progress import Progress
from pes_rl.training.callbacks import Callback
from pes_rl.training.checkpoints import Checkpoints
from pes_rl.training.counters import Counters
from pes_rl.training.lockstep import Steps, run_alone
from pes_rl.training.metrics import (
    clock_row,
    distributions,
    evaluation_row,
    returns_so_far,
    summarise,
    training_row,
)
from pes_rl.training.result import Result
from pes_rl.training.stopping import Ending
from pes_rl.training.video_callback import TrainingFilms


class Trainer:
    """One training run, new or continued.

    Args:
        config: The settings.
        folder: Folder of the run.
        resume: Go on from the folder's newest checkpoint, or from the one of so many
            environment steps; None begins a run.
        assembly: Parts made for such settings; None makes them.
        callbacks: Called in this order.

    Attributes:
        vectorization: How simulations are stepped, in words, where there is a choice.
        failure: Why the run could not go on, if it could not. It then is a whole run up
            to its last update, and can be resumed.

    Raises:
        ValueError: If the settings do not fit the environment, the folder cannot be
            used, or there is no checkpoint to go on from.
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
        # Before anything is computed: programs that differ may wait for one another.
        # Where the folder lies may have another name on another machine.
        named = replace(config, logdir=None if config.logdir is None else "named")
        all_or_none(lambda: check_alike("settings", named))
        # Before anything imports MuJoCo, which binds to what draws.
        wanted = config.video_interval is not None and is_first()
        films = all_or_none(lambda: [TrainingFilms(config)] if wanted else [])
        self._callbacks = [*films, *callbacks]
        self._ending = Ending()
        self.failure: str | None = None
        self._asked_evaluations = 0
        self._particle_returns = np.empty(0)  # of the last unroll
        parts = assembly or all_or_none(lambda: assemble(config))
        self._close = parts.close if assembly is None else lambda: None
        self.vectorization = parts.vectorization
        self._describe, self._learner = parts.describe, parts.learner
        self._evaluate, self._evaluate_finally = parts.evaluate, parts.evaluate_finally
        self._horizon = parts.horizon
        self._lost_workers, self._lost_before = parts.lost_workers, parts.lost_workers()
        policy_key, learner_key, self._eval_key = jax.random.split(
            jax.random.key(config.seed), 3
        )
        self._state = self._learner.init(parts.init_theta(policy_key), learner_key)
        self._counters = Counters(next_checkpoint=config.checkpoint_interval)
        self._open(folder, resume)
        all_or_none(
            lambda: self._folder.write_config(asdict(config), self.vectorization)
        )
        self._began = time.perf_counter() - self._counters.wall_seconds

    def _open(self, folder: Path, resume: Literal["newest"] | int | None) -> None:
        """Open the folder, and go to where the run is to go on."""
        if resume is None:
            self._folder = all_or_none(lambda: open_folder(folder))
            self._checkpoints = Checkpoints(folder / "checkpoints")
            return
        self._checkpoints = Checkpoints(folder / "checkpoints")
        at = all_or_none(lambda: self._checkpoints.choose(resume))
        all_or_none(lambda: check_alike("checkpoints", at))
        if at is not None:
            restored, self._counters = all_or_none(
                lambda: self._checkpoints.restore(at, self._state)
            )
            self._state = self._learner.go_on(restored)
        self._folder = all_or_none(
            lambda: open_folder(folder, resume_at=-1 if at is None else at)
        )

    def request_stop(self, reason: str = "a callback") -> None:
        """Let the run end after the update it is in, as at its budget."""
        self._ending.stop(reason)

    def interrupt(self, reason: str) -> None:
        """Let the run end after the update it is in; safe in a signal handler."""
        self._ending.interrupt(reason)

    @property
    def timesteps(self) -> int:
        """Environment steps so far."""
        return self._counters.timesteps

    @property
    def policy(self) -> TrainedPolicy | TrainedParameters:
        """What is trained, as it is now."""
        return self._describe(self._state.theta, self._state.observations)

    def log_video(self, tag: str, pictures: Sequence[np.ndarray], fps: float) -> None:
        """Show an animated picture in TensorBoard."""
        self._folder.log_video(tag, pictures, fps, self._counters.timesteps)

    def request_checkpoint(self) -> None:
        """Let the run save a checkpoint after the update it is in."""
        self._counters.next_checkpoint = self._counters.timesteps

    def evaluate(self) -> Evaluation:
        """Play fresh episodes with the mean policy as it is; the run is unaffected."""
        self._asked_evaluations += 1
        key = jax.random.fold_in(self._eval_key, self._counters.evaluations)
        key = jax.random.fold_in(key, self._asked_evaluations)
        return jax.tree.map(np.asarray, self._playing(self._evaluate, key)())

    def run(self) -> Result:
        """Train until the budget, the threshold, a stop or an interruption."""
        try:
            return run_alone(self.steps())
        finally:
            self._close()

    def steps(self, output: IO[str] | None = None) -> Steps[Result]:
        """The run, with its updates and evaluations left to the caller.

        Each is a `partial` of the learner's `run` or of an evaluator. What it raises is
        to be thrown back. Progress goes to `output`, or to standard output.
        """
        config = self._config
        label = f"{config.env} {config.agent} seed {config.seed}"
        budget, silent = config.total_timesteps, not is_first()
        with Progress(label, budget, "steps", silent, output) as progress:
            if self._counters.iterations and not self._learner.saves_particles:
                progress.say(
                    "the simulations could not be saved: every particle begins a new "
                    "episode"
                )
            if self._counters.evaluations == 0:
                yield from self._evaluate_and_log({}, progress)
            while not self._at_end():
                try:
                    yield from self._advance(progress)
                except EngineLost as error:
                    self.failure = str(error)
                    self._count_lost_workers()
                    self.interrupt("lost workers")
            return (yield from self._finish(progress))

    def _at_end(self) -> bool:
        """Whether the run is at its end, for whatever reason."""
        solved = self._counters.timesteps_to_threshold is not None
        asked = self._ending.agree(solved and self._config.stop_at_threshold)
        return asked or self._counters.timesteps >= self._config.total_timesteps

    def _advance(self, progress: Progress) -> Steps[None]:
        """Take the updates between two rows of the log, and log them."""
        config, counters = self._config, self._counters
        left = config.total_timesteps - counters.timesteps
        updates_left = -(-left // self._learner.max_steps_per_update())
        begun = time.perf_counter()
        num_updates = min(config.log_interval, updates_left)
        self._state, reports = yield partial(
            self._learner.run, self._state, num_updates=num_updates
        )
        reports = jax.tree.map(np.asarray, reports)
        counters.add_updates(reports, time.perf_counter() - begun)
        self._count_lost_workers()
        self._particle_returns = -reports.particle_loss[-1]
        row = training_row(
            self._state, reports, counters, self._learner, config.reward_shift
        )
        if counters.timesteps >= counters.next_evaluation:
            yield from self._evaluate_and_log(row, progress)
        else:
            self._log(row, progress)
        if counters.timesteps >= counters.next_checkpoint:
            counters.schedule_checkpoint(config.checkpoint_interval)
            self._save_checkpoint(progress)

    def _count_lost_workers(self) -> None:
        lost = self._lost_workers()
        self._counters.lost_workers += lost - self._lost_before
        self._lost_before = lost

    def _evaluate_and_log(
        self, row: dict[str, float], progress: Progress
    ) -> Steps[None]:
        self._counters.schedule_evaluation(self._config.eval_interval)
        evaluation = yield from self._try(self._evaluate, progress)
        if evaluation is None:
            self._log(row, progress)
            return
        self._note_evaluation(evaluation, progress)
        self._log(
            {**row, **evaluation_row(evaluation)},
            progress,
            distributions(self._state, self._particle_returns, self._horizon),
        )
        for callback in self._callbacks:
            callback.on_evaluation(self, evaluation)

    def _try(self, evaluate: Evaluator, progress: Progress) -> Steps[Evaluation | None]:
        """An evaluation; a failure, of whatever kind, is shown and the run goes on."""
        self._counters.evaluations += 1
        key = jax.random.fold_in(self._eval_key, self._counters.evaluations)
        try:
            evaluation = yield self._playing(evaluate, key)
            return jax.tree.map(np.asarray, evaluation)
        except Exception as error:
            progress.say(f"evaluation failed, training goes on: {error!r}")
            return None

    def _playing(self, evaluate: Evaluator, key: jax.Array) -> partial[Evaluation]:
        # Training's devices hold a copy each, and would each play on it.
        policy = jax.device_get((self._state.theta, self._state.observations))
        return partial(evaluate, *policy, key)

    def _note_evaluation(self, evaluation: Evaluation, progress: Progress) -> None:
        """Update the best return and policy, and whether the task is solved."""
        counters = self._counters
        mean = counters.add_evaluation(evaluation, self._config.threshold)
        if counters.best_return is None or mean > counters.best_return:
            try:
                self._folder.save_policy("best", self.policy)
                counters.best_return = mean
            except OSError as error:
                progress.say(f"best policy not saved, training goes on: {error}")

    def _log(
        self,
        row: dict[str, float],
        progress: Progress,
        values: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        counters = self._counters
        counters.wall_seconds = self._wall_seconds()
        row = {**clock_row(counters), **row}
        try:
            self._folder.log(row, values)
        except OSError as error:
            progress.say(f"row of the log not written, training goes on: {error}")
        progress.update(counters.timesteps, returns_so_far(counters))
        for callback in self._callbacks:
            callback.on_log(self, row)

    def _save_checkpoint(self, progress: Progress) -> None:
        """Save the run; a failure is shown and the run goes on.

        It ends one of several processes, whose others are in the midst of their save.
        """
        self._counters.wall_seconds = self._wall_seconds()
        try:
            self._checkpoints.save(self._state, self._counters)
            self._folder.save_policy("last", self.policy)
        except (OSError, ValueError) as error:
            if jax.process_count() > 1:
                raise OSError(f"checkpoint not saved: {error}") from error
            progress.say(f"checkpoint not saved, training goes on: {error}")

    def _finish(self, progress: Progress) -> Steps[Result]:
        """Last checkpoint, final evaluation (unless interrupted) and summary."""
        counters, final = self._counters, None
        self._save_checkpoint(progress)
        self._at_end()  # what was asked meanwhile counts
        if not self._ending.is_interruption:
            final = yield from self._try(self._evaluate_finally, progress)
            self._at_end()
        if final is not None:
            self._note_evaluation(final, progress)
        counters.wall_seconds = self._wall_seconds()
        summary = summarise(
            self._config,
            counters,
            final,
            interrupted=self._ending.is_interruption,
            ended_by=self._ending.by or "the budget",
        )
        try:
            self._folder.write_summary(summary)
            self._folder.close()
        except OSError as error:
            progress.say(f"summary not written: {error}")
        self._checkpoints.close()
        return Result(self._folder.path, summary, self.policy)

    def _wall_seconds(self) -> float:
        return time.perf_counter() - self._began

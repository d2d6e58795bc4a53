"""The record of a run: log, best policy, checkpoints and summary in its folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from pes_rl.config.train_config import TrainConfig
from pes_rl.learner.learner import TrainState
from pes_rl.run_folder.lock import FolderLock
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
)
from pes_rl.run_folder.reader import read_config, read_curve, read_summary
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.run_folder.writer import open_folder, results
from pes_rl.runtime.multihost import check_same, is_first, run_on_all_or_raise
from pes_rl.runtime.output import print_line
from pes_rl.training.checkpoints import Checkpoints
from pes_rl.training.counters import Counters
from pes_rl.training.metrics import COLUMNS, clock_row
from pes_rl.training.result import Result
from pes_rl.training.tracking import Tracker

_FAILURES = (OSError, MemoryError, RuntimeError)
"""What writing can raise: a full disk, no memory, no new thread."""

Trained = TrainedPolicy | TrainedParameters


class Recorder:
    """Writes what a run leaves on disk, and reads it again to resume the run.

    During training a failure to write is reported in one line and training continues:
    a later row, policy or checkpoint may be written again.

    Args:
        folder: Folder of the run.
        resume: Resume from the folder's newest checkpoint, or from the one at this
            number of environment steps; None starts a new run. Rows of the log after
            the checkpoint are dropped, and later checkpoints are deleted, because the
            resumed run writes them again.
        state: A state of the structure, shapes and types of the run's; its values are
            not used.
        track: The tracking service that gets the log too, wandb or trackio.

    Attributes:
        restored: The state in the checkpoint; None where there is none yet.
        counters: Where the run stands; those of the checkpoint in a resumed run.
        report: Called with each line about a failure to write.
        has_saved: Whether a policy, a checkpoint or the summary has been written.

    Raises:
        ValueError: If the folder cannot be used, or the checkpoint cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        resume: Literal["newest"] | int | None,
        state: TrainState,
        track: str | None = None,
    ) -> None:
        self.report: Callable[[str], None] = print_line
        self._tracker = run_on_all_or_raise(
            lambda: Tracker(track if is_first() else None, lambda t: self.report(t))
        )
        self.restored: TrainState | None = None
        self.counters = Counters()
        self.has_saved = False
        self._replaces_row = False
        self._lock = run_on_all_or_raise(
            lambda: FolderLock(folder) if is_first() else None
        )
        try:
            self._open(folder, resume, state)
        except BaseException:
            self._release()
            raise

    def _open(
        self, folder: Path, resume: Literal["newest"] | int | None, state: TrainState
    ) -> None:
        if resume is None:
            self._folder = run_on_all_or_raise(lambda: open_folder(folder, COLUMNS))
            self._checkpoints = Checkpoints(folder / "checkpoints")
            return
        self._checkpoints = Checkpoints(folder / "checkpoints")
        at = run_on_all_or_raise(lambda: self._checkpoints.choose(resume))
        run_on_all_or_raise(lambda: check_same("checkpoints", at))
        if at is not None:
            self.restored, self.counters = run_on_all_or_raise(
                lambda: self._checkpoints.restore(at, state)
            )
            run_on_all_or_raise(lambda: self._take_final_evaluation(folder))
        # Only now: a checkpoint that cannot be read leaves the log as it is.
        keep_until = -1 if at is None else at
        self._folder = run_on_all_or_raise(
            lambda: open_folder(folder, COLUMNS, keep_until)
        )

    def _take_final_evaluation(self, folder: Path) -> None:
        """Take what the final evaluation found, where the run ended at its checkpoint.

        It comes after the last checkpoint, so the summary alone has it.
        """
        try:
            summary = read_summary(folder)
        except ValueError:  # The run has not ended yet.
            return
        counters = self.counters
        if summary.get("total_timesteps") != counters.timesteps:
            return
        best, known = summary.get("best_return"), counters.best_return
        if best is not None and (known is None or best > known):
            counters.best_return = best
        if counters.timesteps_to_threshold is None:
            counters.timesteps_to_threshold = summary.get("timesteps_to_threshold")

    def write_config(
        self,
        config: TrainConfig,
        vectorization: str | None,
        functions: Mapping[str, str],
    ) -> None:
        """Write `config.json`; see `RunFolder.write_config`.

        Raises:
            ValueError: If it cannot be written.
        """
        settings = asdict(config)
        try:
            if self.restored is not None:
                run_on_all_or_raise(lambda: self._change_threshold(config.threshold))
            run_on_all_or_raise(
                lambda: self._folder.write_config(settings, vectorization, functions)
            )
        except ValueError:
            self.close()
            raise
        self._tracker.start(self._folder.path, asdict(config))

    def _change_threshold(self, threshold: float | None) -> None:
        """Where a resumed run gets another threshold: when its log first reached it."""
        folder = self._folder.path
        if read_config(folder).threshold == threshold:
            return
        columns = "time/total_timesteps", "eval/mean_reward", "eval/diverged_episodes"
        steps, returns, diverged = read_curve(folder, columns).values()
        reached = []
        if threshold is not None:
            reached = steps[(returns >= threshold) & (diverged == 0)]
        first = int(reached[0]) if len(reached) else None
        self.counters.timesteps_to_threshold = first

    def log(
        self,
        row: Mapping[str, float],
        distributions: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, float]:
        """Append a row to the log, with the columns that every row has.

        Returns:
            The whole row.
        """
        whole = {**clock_row(self.counters), **row}
        try:
            if self._replaces_row:
                self._replaces_row = False
                self._folder.drop_row(self.counters.timesteps)
            self._folder.log(whole, distributions)
        except _FAILURES as error:
            self.report(f"row of the log not written, training continues: {error}")
        tracked = {k: v for k, v in whole.items() if k != "time/total_timesteps"}
        self._tracker.log(tracked, distributions, self.counters.timesteps)
        return whole

    def row_to_complete(self) -> dict[str, float]:
        """The logged row of the steps so far, which the next one to be logged replaces.

        Returns:
            Its values, but for the time; empty if there is none.
        """
        counters = self.counters
        try:
            row = self._folder.read_row(counters.timesteps)
        except _FAILURES as error:
            self.report(f"row of the log not read, training continues: {error}")
            return {}
        self._replaces_row = bool(row)
        clock = clock_row(counters)
        return {name: value for name, value in row.items() if name not in clock}

    def log_video(self, tag: str, pictures: Sequence[np.ndarray], fps: float) -> None:
        """Show an animated picture in TensorBoard, at the steps so far.

        Raises:
            OSError: If it cannot be written.
        """
        step = self.counters.timesteps
        self._tracker.log_video(tag, pictures, fps, step)
        self._folder.log_video(tag, pictures, fps, step)

    def save_best(self, policy: Trained, mean_return: float) -> None:
        """Save the policy as the best so far, if its mean return is the highest."""
        best = self.counters.best_return
        if best is not None and not mean_return > best:
            return
        try:
            self._folder.save_policy("best", policy)
        except _FAILURES as error:
            self.report(f"best policy not saved, training continues: {error}")
        else:
            self.counters.best_return = mean_return
            self.has_saved = True

    def save_checkpoint(self, state: TrainState, policy: Trained) -> None:
        """Save a checkpoint and the policy as the last one, each if the other fails.

        Raises:
            OSError: If it fails in one of several processes; the others are in the
                middle of their save, so this process cannot continue.
        """
        saves: dict[str, Callable[[], None]] = {
            "checkpoint": lambda: self._checkpoints.save(state, self.counters),
            "last policy": lambda: self._folder.save_policy("last", policy),
        }
        for what, save in saves.items():
            try:
                save()
                self.has_saved = True
            except Exception as error:  # Orbax and TensorStore raise many types.
                if jax.process_count() > 1:
                    raise OSError(f"{what} not saved: {error}") from error
                reason = str(error).strip().split("\n")[0]
                self.report(f"{what} not saved, training continues: {reason}")

    def finish(self, summary: dict[str, Any], policy: Trained) -> Result:
        """Write the summary and close the folder."""
        try:
            self._folder.write_summary(summary)
            self.has_saved = True
        except _FAILURES as error:
            self.report(f"summary not written: {error}")
        self._tracker.log(results(summary), None, self.counters.timesteps)
        self.close()
        return Result(self._folder.path, summary, policy)

    def close(self) -> None:
        """Close all files; the second call does nothing."""
        self._tracker.close()
        try:
            self._folder.close()
        except _FAILURES as error:
            self.report(f"log not closed: {error}")
        self._checkpoints.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def check_same_settings(config: TrainConfig) -> None:
    """Raise `ValueError` where processes of one run have different settings.

    Before anything is computed: programs that differ may wait for each other for ever.
    The folder may have another name on another machine.
    """
    logdir = None if config.logdir is None else "named"
    compared = replace(config, logdir=logdir)
    run_on_all_or_raise(lambda: check_same("settings", compared))

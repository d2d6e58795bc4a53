"""Callbacks: user code that runs after each row of the log and each evaluation."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from pes_rl.learner.evaluation import Evaluation
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)


class Run(Protocol):
    """The view of a run that a callback gets."""

    @property
    def timesteps(self) -> int:
        """Environment steps so far."""
        ...

    def request_stop(self, reason: str = "a callback") -> None:
        """Stop the run after the current row of the log, as at the end of its budget.

        The run counts as complete; `ended_by` in its summary is the reason.
        """
        ...

    def interrupt(self, reason: str) -> None:
        """Stop the run after the current row of the log, as on Ctrl-C.

        There is no final evaluation, and the run counts as interrupted.
        """
        ...

    def request_checkpoint(self) -> None:
        """Save a checkpoint after the current row of the log."""
        ...

    @property
    def policy(self) -> TrainedPolicy | TrainedParameters:
        """The mean policy, or an unrolled problem's parameters, as they are now."""
        ...

    def log_video(self, tag: str, pictures: Sequence[np.ndarray], fps: float) -> None:
        """Show an animated picture in TensorBoard, at the steps so far.

        Args:
            tag: Its name there.
            pictures: At least one. # shape=(height, width, 3) each, dtype=uint8
            fps: Pictures a second, at most 50.

        Raises:
            OSError: If it cannot be written.
        """
        ...

    def evaluate(self) -> Evaluation:
        """Play fresh episodes with the mean policy as it is now.

        The run is not affected: the episodes have their own random keys, and their
        steps are not counted.
        """
        ...


class Callback:
    """Base class of callbacks; override the methods that you need.

    In a run of several processes, each process calls its own callbacks. A checkpoint or
    an evaluation must be requested in all of them; a stop or an interruption requested
    in one stops all. An exception raised in a callback ends the run.

    Example:
        >>> import pes_rl
        >>> class StopAtGoodReturn(pes_rl.Callback):
        ...     def on_evaluation(self, run, evaluation):
        ...         if evaluation.returns.mean() > 340:
        ...             run.request_stop("good enough")
    """

    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Called after each row of the log; keys are those of `progress.csv`."""

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Called after each evaluation during training, once its row is logged."""

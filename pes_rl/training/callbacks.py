"""Callbacks: a user's own code at the rows of a run's log and at its evaluations."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from pes_rl.learner.evaluation import Evaluation
from pes_rl.run_folder.policy_files import TrainedParameters, TrainedPolicy


class Run(Protocol):
    """What a callback sees of a run, and what it may ask of it."""

    @property
    def timesteps(self) -> int:
        """Environment steps so far."""
        ...

    def request_stop(self, reason: str = "a callback") -> None:
        """Let the run end after the row that is being logged, as at its budget.

        It counts as complete; `ended_by` of its summary is the reason.
        """
        ...

    def interrupt(self, reason: str) -> None:
        """Let the run end after the row that is being logged, as on Ctrl-C.

        There is no last evaluation, and it counts as cut off.
        """
        ...

    def request_checkpoint(self) -> None:
        """Let the run save a checkpoint after the row that is being logged."""
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

        The run goes on as if they had not been played: they have randomness of their
        own and count nowhere.
        """
        ...


class Callback:
    """Does nothing; subclasses do something in the methods that they override.

    Of a run in several processes each calls its own. What asks for a checkpoint or an
    evaluation must do so in all of them; a stop or an interruption is all processes'.

    What a method raises ends the run as an error of the user's code.
    """

    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Called after each row of the log; keys are those of `progress.csv`."""

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Called after each evaluation during training, once its row is logged."""

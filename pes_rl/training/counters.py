"""Counters of a run: steps, updates, evaluations, returns, times."""

from dataclasses import dataclass

import numpy as np

from pes_rl.agents import Report
from pes_rl.learner.evaluation import Evaluation


@dataclass
class Counters:
    """Progress of a run, in environment steps where not said otherwise.

    Saved with every checkpoint: the fields are keys of its `counters` file.
    """

    timesteps: int = 0
    iterations: int = 0
    evaluations: int = 0
    dropped_simulations: int = 0
    lost_workers: int = 0
    next_evaluation: int = 0
    next_checkpoint: int = 0
    timesteps_to_threshold: int | None = None
    best_return: float | None = None
    last_return: float | None = None
    last_return_std: float | None = None
    last_return_timesteps: int | None = None
    training_seconds: float = 0.0
    wall_seconds: float = 0.0

    def add_updates(self, reports: Report, seconds: float) -> None:
        """Add updates to the counters.

        Args:
            reports: In NumPy, with a leading axis over the updates.
            seconds: Time of the updates.
        """
        self.training_seconds += seconds
        self.timesteps += int(reports.env_steps.sum(dtype=np.int64))
        self.iterations += len(reports.env_steps)
        self.dropped_simulations += int(reports.diverged.sum())

    def add_evaluation(
        self, evaluation: Evaluation, threshold: float | None
    ) -> float | None:
        """Add an evaluation, and record whether it is the first at the threshold.

        The first parameters count as the best only until there are trained ones.

        Returns:
            Its mean return; None if it counts for nothing, because an episode diverged.
            `best_return` changes only once the best policy is saved.
        """
        if evaluation.diverged.any():
            return None
        if self.timesteps > 0 and self.last_return_timesteps == 0:
            self.best_return = None
        mean = self.last_return = float(evaluation.returns.mean())
        self.last_return_std = float(evaluation.returns.std())
        self.last_return_timesteps = self.timesteps
        solved = threshold is not None and mean >= threshold
        if solved and self.timesteps_to_threshold is None:
            self.timesteps_to_threshold = self.timesteps
        return mean

    @property
    def is_evaluation_due(self) -> bool:
        """Whether the steps of the next evaluation are reached."""
        return self.timesteps >= self.next_evaluation

    def schedule_evaluation(self, interval: int) -> None:
        """Set the next evaluation to the next multiple of `interval`."""
        self.next_evaluation = _next_multiple(self.timesteps, interval)

    def schedule_checkpoint(self, interval: int) -> None:
        """Set the next checkpoint to the next multiple of `interval`."""
        self.next_checkpoint = _next_multiple(self.timesteps, interval)

    @property
    def steps_per_second(self) -> float:
        """Environment steps a second of training, without evaluations and logging."""
        return self.timesteps / max(self.training_seconds, 1e-9)


def _next_multiple(timesteps: int, interval: int) -> int:
    return (timesteps // interval + 1) * interval

"""Where a run stands."""

from dataclasses import dataclass

import numpy as np

from pes_rl.agents import Report
from pes_rl.learner.evaluation import Evaluation


@dataclass
class Counters:
    """Where a run stands, in environment steps; saved with every checkpoint."""

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
    training_seconds: float = 0.0
    wall_seconds: float = 0.0

    def add_updates(self, reports: Report, seconds: float) -> None:
        """Count updates.

        Args:
            reports: In NumPy, with a leading axis over the updates.
            seconds: That they took.
        """
        self.training_seconds += seconds
        self.timesteps += int(reports.env_steps.sum(dtype=np.int64))
        self.iterations += len(reports.env_steps)
        self.dropped_simulations += int(reports.diverged.sum())

    def add_evaluation(self, evaluation: Evaluation, threshold: float | None) -> float:
        """Count an evaluation, and note whether it is the first at the threshold.

        Returns:
            Its mean return; that it is the best is noted by who saves the best policy.
        """
        mean = self.last_return = float(evaluation.returns.mean())
        self.last_return_std = float(evaluation.returns.std())
        solved = threshold is not None and mean >= threshold
        if solved and self.timesteps_to_threshold is None:
            self.timesteps_to_threshold = self.timesteps
        return mean

    def schedule_evaluation(self, interval: int) -> None:
        """Let the next evaluation be at the next multiple of `interval`."""
        self.next_evaluation = _next_multiple(self.timesteps, interval)

    def schedule_checkpoint(self, interval: int) -> None:
        """Let the next checkpoint be at the next multiple of `interval`."""
        self.next_checkpoint = _next_multiple(self.timesteps, interval)

    @property
    def steps_per_second(self) -> float:
        """Of training, evaluation and logging not counted in the time."""
        return self.timesteps / max(self.training_seconds, 1e-9)


def _next_multiple(timesteps: int, interval: int) -> int:
    return (timesteps // interval + 1) * interval

"""The evaluations of a run: random keys, failures, and how a signal stops one."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from pes_rl.learner.evaluation import Evaluation, Evaluator
from pes_rl.learner.learner import TrainState
from pes_rl.runtime.progress import Progress
from pes_rl.training.counters import Counters
from pes_rl.training.lockstep import Steps


class EvaluationStopped(Exception):
    """A signal has stopped an evaluation."""


class Evaluations:
    """Evaluations of the mean policy, each with a key of its own.

    Args:
        key: Key of all evaluations of the run.
        counters: Counters of the run.
    """

    def __init__(self, key: jax.Array, counters: Counters) -> None:
        self._key, self._counters = key, counters
        self._extra = 0
        self._is_evaluating = False

    def stop(self) -> None:
        """Stop an evaluation in progress; for a signal handler of the main thread.

        An evaluation on the host ends between two steps, one on a device after it.

        Raises:
            EvaluationStopped: If there is one; `attempt` passes it on.
        """
        if self._is_evaluating:
            self._is_evaluating = False
            raise EvaluationStopped

    def attempt(
        self, evaluate: Evaluator, state: TrainState, progress: Progress, episodes: str
    ) -> Steps[Evaluation | None]:
        """The next evaluation; any failure of it is reported and training continues.

        Args:
            evaluate: Plays the episodes.
            state: State of the training.
            progress: Says what is waited for, and a failure.
            episodes: Such as "10 episodes".

        Raises:
            EvaluationStopped: If a signal stopped it. It does not count as one, so the
                next one is the same.
        """
        self._counters.evaluations += 1
        key = jax.random.fold_in(self._key, self._counters.evaluations)
        compiling = "compiling and " if hasattr(evaluate, "lower") else ""
        self._is_evaluating = True
        try:
            with progress.waiting_once(f"{compiling}playing {episodes}"):
                evaluation = yield _call(evaluate, state, key)
            return jax.tree.map(np.asarray, evaluation)
        except EvaluationStopped:
            self._counters.evaluations -= 1
            raise
        except Exception as error:
            progress.say(f"evaluation failed, training continues: {error!r}")
            return None
        finally:
            self._is_evaluating = False

    def record(
        self,
        evaluation: Evaluation,
        threshold: float | None,
        say: Callable[[str], None],
    ) -> float | None:
        """Update the last and best return, and whether the task is solved.

        Returns:
            The mean return; None if the evaluation counts for nothing, because episodes
            diverged.
        """
        mean = self._counters.add_evaluation(evaluation, threshold)
        if mean is None:
            say(
                f"{evaluation.diverged.sum()} of {len(evaluation.diverged)} episodes "
                "of the evaluation diverged, so it counts for nothing"
            )
        return mean

    def extra(self, evaluate: Evaluator, state: TrainState) -> Evaluation:
        """An evaluation that is none of the run's, which is unaffected by it."""
        self._extra += 1
        key = jax.random.fold_in(self._key, self._counters.evaluations)
        key = jax.random.fold_in(key, self._extra)
        return jax.tree.map(np.asarray, _call(evaluate, state, key)())


def _call(
    evaluate: Evaluator, state: TrainState, key: jax.Array
) -> partial[Evaluation]:
    # Each device of the training holds a copy, and would evaluate it once more.
    policy = jax.device_get((state.theta, state.observations))
    return partial(evaluate, *policy, key)

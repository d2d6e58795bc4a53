"""What a run is assembled from, and what comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from pes_rl.envs import ObservationMoments
from pes_rl.learner.evaluation import Evaluator
from pes_rl.learner.learner import Learner
from pes_rl.run_folder.policy_files import TrainedParameters
from pes_rl.run_folder.trained_policy import TrainedPolicy


@dataclass(frozen=True)
class Environments:
    """Two equal environments, so that training and evaluation share no simulations."""

    training: Any
    evaluation: Any


@dataclass(frozen=True)
class Assembly:
    """The objects of a run; runs that differ only in their seeds can share them.

    Attributes:
        init_theta: First parameters of the policy, or of the unrolled problem, by key.
        describe: Makes what is saved from theta and the moments of observations, which
            are None where observations are not normalised.
        learner: Trains them.
        evaluate: Plays the episodes of an evaluation during training, on simulations of
            its own.
        evaluate_finally: Plays those of the last one, maybe in another environment.
        horizon: Steps of the longest episode of an evaluation.
        vectorization: How simulations are stepped, in words, where there is a choice.
        pool: The Ray workers of training; None without any.
        environments: All environments, to be closed after the run.
        functions: What each setting follows that is a function of the user's, as text.
    """

    init_theta: Callable[[jax.Array], jax.Array]
    describe: Callable[
        [jax.Array, ObservationMoments | None], TrainedPolicy | TrainedParameters
    ]
    learner: Learner
    evaluate: Evaluator
    evaluate_finally: Evaluator
    horizon: int | None
    vectorization: str | None = None
    pool: Any = None
    environments: tuple[Any, ...] = ()
    functions: Mapping[str, str] = field(default_factory=dict)

    def lost_workers(self) -> int:
        """Number of Ray workers that have been replaced so far."""
        return 0 if self.pool is None else self.pool.lost

    def interrupt(self) -> None:
        """Let waits for Ray workers end soon; safe in a signal handler."""
        if self.pool is not None:
            self.pool.interrupt()

    def close(self) -> None:
        """End the Ray workers, and the processes and simulations of environments."""
        if self.pool is not None:
            self.pool.close()
        for environment in self.environments:
            close = getattr(environment, "close", None)
            if close is not None:
                close()

"""The interface of the classes that step a batch of Gymnasium simulations.

- `Simulations`: one after another, in this process;
- `Workers`: distributed over several processes;
- `EnvPoolThreads`: by EnvPool's threads, in C++;
- `VectorEnvSimulations`: by a `VectorEnv` of the user.

All but EnvPool, which implements the tasks itself, give the same run to the bit.
"""

from typing import Protocol

import numpy as np


class Vectorization(Protocol):
    """N simulations of one environment, any subset of which can be reset or stepped.

    Attributes:
        idle_steps: Steps so far of simulations that were not in `ids`.
    """

    idle_steps: int

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Start an episode in each of the n simulations `ids`.

        Args:
            seeds: Seeds of the episodes. # shape=(n,), dtype=int64, below 2^31
            ids: Simulations to reset. # shape=(n,)

        Returns:
            First observations. # shape=(n, O), dtype=float64
        """
        ...

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step the n simulations `ids` with actions [n, ...] of the environment's own.

        Returns:
            (observations [n, O], rewards [n], ended [n]). Where an episode ended, the
            reward is that of its last step; it is NaN where a simulation was lost.
        """
        ...

    def close(self) -> None:
        """Release the resources of the simulations; they are not used again."""
        ...

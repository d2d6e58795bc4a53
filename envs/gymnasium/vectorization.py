"""How the simulations of a Gymnasium environment are stepped.

- `simulations`: one after another, in this process;
- `workers`: a share in each of several processes;
- `envpool_threads`: by EnvPool's threads, in C++;
- `vector_env`: by a `VectorEnv` that the user hands over.

Each is a `Vectorization`. With all but EnvPool's, whose simulations are its own, a run
is the same to the bit.
"""

from typing import Protocol

import numpy as np


class Vectorization(Protocol):
    """N simulations of one environment, any of which can be reset or stepped.

    Attributes:
        idle_steps: Steps so far of simulations that nobody asked to step.
    """

    idle_steps: int

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Begin an episode in each of `ids`, with these seeds [n], dtype uint64.

        Returns:
            First observations. # shape=(n, O), dtype=float64
        """
        ...

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of each of `ids`, with the environment's own actions [n, ...].

        Returns:
            (observations [n, O], rewards [n], ended [n]). The reward is that of the
            episode that ended, where one did; it is NaN where a simulation was lost.
        """
        ...

    def close(self) -> None:
        """Give up what the simulations hold; they are not used again."""
        ...

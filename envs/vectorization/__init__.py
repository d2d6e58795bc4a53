"""How the simulations of a Gymnasium environment are stepped.

| | some can stand while others step | an episode's seed |
|---|---|---|
| `simulations`: one after another, in this process | yes | its own |
| `workers`: a share in each of several processes | yes | its own |
| `envpool_threads`: by EnvPool's threads, in C++ | yes | the pool's stream |
| `vector_env`: by a `VectorEnv` from the user | it steps them all; see there | its own |

Each is a `Vectorization`. On the first, second and fourth a run is the same to the bit.
"""

from typing import Protocol

import numpy as np


class Vectorization(Protocol):
    """N simulations of one environment, any of which can be reset or stepped.

    Attributes:
        dragged_steps: Steps so far of simulations that nobody asked to step.
    """

    dragged_steps: int

    def reset(self, ids: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Begin an episode in each of `ids`, with these seeds [n], uint64.

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

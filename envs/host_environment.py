"""What the host driver steps: batches of simulations in NumPy."""

from typing import Any, Protocol

import numpy as np


class HostEnvironment(Protocol):
    """A batch of N simulations stepped together in NumPy.

    The environment holds the simulations only during an unroll: `load` puts them in and
    `save` takes them out, so that between two unrolls they are data.
    """

    @property
    def on_device(self) -> bool:
        """False; a `DeviceEnvironment` has True."""
        ...

    @property
    def observation_size(self) -> int: ...

    @property
    def action_low(self) -> np.ndarray: ...

    @property
    def action_high(self) -> np.ndarray: ...

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is cut; None where nothing cuts it."""
        ...

    @property
    def can_copy(self) -> bool:
        """Whether what `save` returns can be indexed and loaded again."""
        ...

    def allocate(self, num_simulations: int) -> None:
        """Prepare N simulations; `reset` of all of them follows."""
        ...

    def load(self, state: Any) -> None:
        """Continue the simulations that `save` returned."""
        ...

    def save(self) -> Any:
        """The simulations' states, with leading axis N."""
        ...

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Start new episodes; all of an episode's randomness is in its key.

        Args:
            ids: Simulations to reset. # shape=(n,)
            keys: Key data of each new episode. # shape=(n, 2), dtype=uint32

        Returns:
            First observations. # shape=(n, O)
        """
        ...

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of the simulations `ids` (n of them; None for all).

        Returns:
            (observations [n, O], rewards [n], terminated [n]); the reward of a
            simulation that diverged is NaN.
        """
        ...

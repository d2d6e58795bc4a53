"""What a run gives back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Result:
    """What a run ended with.

    Attributes:
        folder: The run's folder.
        summary: Content of its `summary.json`.
        policy: The last policy, ready to act: `policy(observation)`; of an unrolled
            problem, its last `TrainedParameters`.
    """

    folder: Path
    summary: dict[str, Any]
    policy: Any

    @property
    def theta(self) -> np.ndarray:
        """Parameters of the policy or problem. # shape=(D,), dtype=float32."""
        return self.policy.theta

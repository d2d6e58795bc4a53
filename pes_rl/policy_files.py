"""Policies as files: theta and the policy's description in one npz, no code in it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pes_rl.agents import Policy

FORMAT = 1


def save_policy(path: Path, policy: Policy, theta: np.ndarray) -> None:
    """Write the policy and its parameters [D]."""
    description = {"format": FORMAT, **dataclasses.asdict(policy)}
    with path.open("wb") as file:
        np.savez(
            file, theta=np.asarray(theta), policy=np.array(json.dumps(description))
        )


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy with its parameters, ready to act; NumPy alone computes the action.

    Attributes:
        policy: The function.
        theta: Its parameters. # shape=(D,)
    """

    policy: Policy
    theta: np.ndarray

    def __call__(self, observation: Any) -> np.ndarray:
        """Action(s) in the environment's units, for Gymnasium's `step`.

        Args:
            observation: # shape=(O,) or (N, O)

        Returns:
            # shape=(A,) or (N, A), dtype=float32

        Raises:
            ValueError: If the last axis is not the policy's O.
        """
        observation = np.asarray(observation, np.float64)
        size = self.policy.observation_size
        if observation.ndim not in (1, 2) or observation.shape[-1] != size:
            raise ValueError(
                f"observation has shape {observation.shape}; this policy takes "
                f"({size},) or (N, {size})"
            )
        theta = self.theta.astype(np.float64)
        if observation.ndim == 2:
            theta = np.broadcast_to(theta, (len(observation), len(theta)))
        return self.policy.act(theta, observation).astype(np.float32)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """Action and state as Stable-Baselines3's `predict`; there is no state.

        Raises:
            ValueError: If a random action is asked for; the policy has none.
        """
        del state, episode_start
        if not deterministic:
            raise ValueError("this policy is deterministic; use deterministic=True")
        return self(observation), None


def load_policy(
    run: str | Path, which: Literal["best", "last"] = "best"
) -> TrainedPolicy:
    """Read a policy that training saved.

    Args:
        run: A run folder, or an npz file in its `policy/`.
        which: The one with the best evaluation, or the last; for a run folder.

    Raises:
        ValueError: If there is no policy of this format.
    """
    path = Path(run)
    if path.suffix != ".npz":
        path = path / "policy" / f"{which}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            theta, description = file["theta"], json.loads(str(file["policy"]))
        version = description.pop("format")
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a policy saved by pes_rl ({error}); use a run folder, or "
            "policy/best.npz or policy/last.npz of one"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has policy format {version}, and this pes_rl reads {FORMAT}; "
            "load it with the version of pes_rl that wrote it"
        )
    for name in ("action_low", "action_high", "hidden_sizes"):
        description[name] = tuple(description[name])  # JSON knows lists only
    return TrainedPolicy(Policy(**description), theta)

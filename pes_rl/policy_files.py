"""Policies as files: theta and the policy's description in one npz, no code in it."""

import dataclasses
import json
from pathlib import Path

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


def load_policy(path: Path) -> tuple[Policy, np.ndarray]:
    """Read what `save_policy` wrote.

    Returns:
        (policy, theta); `policy.act(theta, observation)` acts, in NumPy.

    Raises:
        ValueError: If the file is not a policy of this format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            theta, description = file["theta"], json.loads(str(file["policy"]))
        version = description.pop("format")
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a policy saved by pes_rl ({error}); "
            "use policy/best.npz or policy/last.npz of a run folder"
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has policy format {version}, and this pes_rl reads {FORMAT}; "
            "load it with the version of pes_rl that wrote it"
        )
    for name in ("action_low", "action_high", "hidden_sizes"):
        description[name] = tuple(description[name])  # JSON knows lists only
    return Policy(**description), theta

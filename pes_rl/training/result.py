"""The result of a run: its folder, its summary and what was trained."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.envs.names import is_unrolled
from pes_rl.run_folder.policy_files import (
    load_parameters,
    load_policy,
)
from pes_rl.run_folder.reader import read_config, read_summary


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        folder: The run's folder.
        summary: Content of its `summary.json`.
        policy: The last policy, ready to act: `policy(observation)`; for an unrolled
            problem, its last `TrainedParameters`.

    Example:
        >>> import pes_rl
        >>> result = pes_rl.Result.load("my_run")  # or what pes_rl.train returns
        >>> copy = result.save("my_pendulum")
        >>> sorted(path.name for path in copy.iterdir())
        ['config.json', 'policy', 'summary.json']
    """

    folder: Path
    summary: dict[str, Any]
    policy: Any

    @property
    def theta(self) -> np.ndarray:
        """Parameters of the policy or problem. # shape=(D,), dtype=float32."""
        return self.policy.theta

    def save(self, folder: str | Path) -> Path:
        """Copy what a user of the result needs: settings, summary and policies.

        `Result.load`, `pes_rl.load_policy`, `pes_rl.evaluate` and `pes_rl.video` take
        the copy as they take the run's folder. It has no log and no checkpoint, so it
        cannot be resumed.

        Args:
            folder: A new or an empty folder.

        Returns:
            The folder.

        Raises:
            ValueError: If there is something in the folder already.
            OSError: If it cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is not empty; save the result in a new folder")
        for file in (
            "config.json",
            "summary.json",
            "policy/best.npz",
            "policy/last.npz",
        ):
            source, target = self.folder / file, folder / file
            # There is no best policy where no evaluation succeeded.
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Result":
        """Read the result of a run that has ended, or one that was saved.

        No code from the files is executed.

        Args:
            folder: The run's folder, or one that `save` wrote.

        Raises:
            ValueError: If it is no such folder, or a file in it is damaged.
        """
        folder = Path(folder)
        config, summary = read_config(folder), read_summary(folder)
        load = load_parameters if is_unrolled(config.env) else load_policy
        return cls(folder, summary, load(folder, "last"))

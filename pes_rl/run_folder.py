"""What a run leaves on disk: settings, log, TensorBoard events, policies, summary."""

import csv
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from pes_rl import __version__
from pes_rl.config import TrainConfig
from pes_rl.policy_files import (
    TrainedParameters,
    TrainedPolicy,
    save_parameters,
    save_policy,
)

COLUMNS: tuple[str, ...] = (
    "time/total_timesteps",
    "time/iterations",
    "time/time_elapsed",
    "time/fps",
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "eval/mean_reward",
    "eval/std_reward",
    "eval/mean_ep_length",
    "train/learning_rate",
    "train/sigma",
    "train/theta_norm",
    "pes/gradient_norm",
    "pes/signal_to_noise",
    "pes/accumulator_norm",
    "pes/ended_share",
    "pes/dropped_simulations",
)
"""Columns of `progress.csv` and tags in TensorBoard, in Stable-Baselines3's words."""

_PACKAGES = ("jax", "jaxlib", "optax", "mujoco", "brax", "gymnasium", "numpy")


class RunFolder:
    """A run's folder, open for writing.

    Args:
        path: The folder; made if missing.
        resume_at: Environment steps of the checkpoint that the run goes on from: rows
            of the log after it are dropped, for they will be written again. None for
            a new run, which needs a folder without one.

    Raises:
        ValueError: If the folder holds another run, or cannot be written.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        self.path = path
        if resume_at is None and (path / "config.json").exists():
            raise ValueError(
                f"{path} already holds a run; choose another --logdir, or continue "
                f"that run with --resume {path}"
            )
        try:
            (path / "policy").mkdir(parents=True, exist_ok=True)
            self._csv = self._open_csv(resume_at)
            self._tensorboard = SummaryWriter(str(path))
        except OSError as error:
            raise ValueError(
                f"the log folder {path} cannot be written ({error.strerror}); "
                "choose another --logdir"
            ) from error
        self._rows = csv.DictWriter(self._csv, COLUMNS)
        if self._csv.tell() == 0:
            self._rows.writeheader()
            self._csv.flush()

    def _open_csv(self, resume_at: int | None) -> Any:
        path = self.path / "progress.csv"
        if resume_at is not None and path.exists():
            kept = [
                line
                for row, line in enumerate(path.read_text().splitlines(keepends=True))
                if row == 0 or int(line.split(",")[0]) <= resume_at
            ]
            path.write_text("".join(kept))
        return path.open("a", newline="")

    def log(self, row: dict[str, float]) -> None:
        """Append a row to the CSV and to TensorBoard; keys are among `COLUMNS`."""
        self._rows.writerow(row)
        self._csv.flush()
        timesteps = int(row["time/total_timesteps"])
        for tag, value in row.items():
            if tag != "time/total_timesteps" and np.isfinite(value):
                self._tensorboard.add_scalar(tag, value, timesteps)

    def write_config(self, settings: dict[str, Any], vectorization: str | None) -> None:
        """Write `config.json`: settings, versions and the command.

        Args:
            settings: Of the run.
            vectorization: How Gymnasium simulations are stepped, in words.
        """
        packages = {name: version(name) for name in _PACKAGES}
        packages["pes-rl"] = __version__
        self._write_json(
            "config.json",
            {
                "settings": settings,
                "vectorization": vectorization,
                "versions": {"python": platform.python_version(), **packages},
                "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
            },
        )

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`."""
        self._write_json("summary.json", summary)

    def save_policy(
        self, name: str, trained: TrainedPolicy | TrainedParameters
    ) -> None:
        """Write `policy/NAME.npz`, whole or not at all."""
        path = self.path / "policy" / f"{name}.npz"
        unfinished = path.with_suffix(".unfinished")
        if isinstance(trained, TrainedPolicy):
            save_policy(unfinished, trained)
        else:
            save_parameters(unfinished, trained)
        os.replace(unfinished, path)

    def close(self) -> None:
        """Flush and close the logs."""
        self._csv.close()
        self._tensorboard.close()

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        unfinished = self.path / f"{name}.unfinished"
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(unfinished, self.path / name)


def default_folder(config: TrainConfig) -> Path:
    """A folder for a new run: runs/ENV/AGENT-sSEED-TIME."""
    env = re.sub(r"[^A-Za-z0-9_.-]+", "-", config.env)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path("runs", env, f"{config.agent}-s{config.seed}-{stamp}")
    count = 1
    while folder.exists():
        count += 1
        folder = folder.with_name(f"{config.agent}-s{config.seed}-{stamp}-{count}")
    return folder


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of the run in `path`.

    Raises:
        ValueError: If there is no run.
    """
    try:
        settings = json.loads((path / "config.json").read_text())["settings"]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a run folder (no readable config.json); use the folder "
            "that --logdir named"
        ) from error
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def read_curve(path: Path, columns: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of a run's `progress.csv`, at the rows where all of them have a value."""
    with (path / "progress.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[c] for c in columns)]
    return {c: np.array([float(row[c]) for row in rows]) for c in columns}

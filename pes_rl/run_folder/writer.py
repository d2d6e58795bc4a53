"""Writing the folder of a run: settings, log, TensorBoard events, policies, summary."""

import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.config.train_config import TrainConfig
from pes_rl.run_folder.lock import folder_error
from pes_rl.run_folder.policy_files import (
    TrainedParameters,
    save_parameters,
    save_policy,
)
from pes_rl.run_folder.provenance import package_versions, version_and_commit
from pes_rl.run_folder.reader import read_versions
from pes_rl.run_folder.tensorboard import EventLog
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.runtime.csv_table import CsvLog
from pes_rl.runtime.multihost import broadcast_from_process_0, is_first

_RESULTS = {
    "final_return": "Mean return of the last parameters in the final evaluation.",
    "best_return": "Highest mean return of an evaluation.",
    "timesteps_to_threshold": "Environment steps to the first evaluation at the "
    "threshold.",
    "total_timesteps": "Environment steps of the run.",
    "wall_seconds": "Seconds of the run.",
}
_ENVIRONMENT = ("env", "env_kwargs", "backend", "horizon")
"""Settings that a policy file names its environment by."""
OTHER_TAGS = {
    "particles/return": "Returns of the particles in the last unroll before an "
    "evaluation, or in whole episodes; with the reward shift, if there is one.",
    "particles/phase": "Where the particles are in their episodes: steps so far in "
    "shares of the horizon.",
    "eval/video": "The start of an episode with the unperturbed policy.",
    **{f"result/{name}": text for name, text in _RESULTS.items()},
}
"""Descriptions of the tags in TensorBoard that are no columns of `progress.csv`."""


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """The results in a summary that dashboards show, by their tags."""
    found = {f"result/{name}": summary.get(name) for name in _RESULTS}
    return {tag: float(value) for tag, value in found.items() if value is not None}


class RunFolder:
    """A run's folder, open for writing.

    Args:
        path: The folder; made if missing.
        columns: Columns of `progress.csv`, which are tags in TensorBoard, with their
            descriptions; the first is the environment steps so far.
        resume_at: Environment steps of the checkpoint that the run is resumed from:
            rows of the log after it are dropped, because they will be written again; -1
            drops all. None for a new run, which needs a folder without one.

    Raises:
        ValueError: If the folder holds another run, or cannot be written.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, str], resume_at: int | None = None
    ) -> None:
        self.path = path
        if resume_at is None and (path / "config.json").exists():
            raise ValueError(
                f"{path} already holds a run; choose another --logdir, or continue "
                f"that run with --resume {path}"
            )
        try:
            (path / "policy").mkdir(parents=True, exist_ok=True)
            self._log = CsvLog(path / "progress.csv", tuple(columns), resume_at)
            self._tensorboard = EventLog(path, resume_at, {**columns, **OTHER_TAGS})
        except OSError as error:
            raise folder_error(path, error) from error

    def log(
        self,
        row: dict[str, float],
        distributions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Append a row to the CSV and to TensorBoard, and distributions to the latter.

        Args:
            row: Values by column.
            distributions: Values by tag, of any shape.

        Raises:
            ValueError: If a key is not among the columns.
            OSError: If it cannot be written, wholly or in part; the next one may be.
        """
        self._log.append(row)
        timesteps = int(row["time/total_timesteps"])
        scalars = {k: v for k, v in row.items() if k != "time/total_timesteps"}
        self._tensorboard.add_scalars(scalars, timesteps)
        for tag, values in (distributions or {}).items():
            self._tensorboard.add_histogram(tag, values, timesteps)

    def read_row(self, timesteps: int) -> dict[str, float]:
        """Values of the last row of `progress.csv` if it is of these environment steps.

        Raises:
            ValueError: If it holds something else than numbers.
            OSError: If the file cannot be read.
        """
        row = self._log.last(timesteps)
        return {
            name: int(text) if text.isdecimal() else float(text)
            for name, text in row.items()
            if text
        }

    def drop_row(self, timesteps: int) -> None:
        """Remove the row of these environment steps from `progress.csv`.

        Raises:
            OSError: If the file cannot be written.
        """
        self._log.drop_from(timesteps)

    def log_video(
        self, tag: str, pictures: Sequence[np.ndarray], fps: float, timesteps: int
    ) -> None:
        """Show an animated picture in TensorBoard; see `EventLog.add_video`."""
        self._tensorboard.add_video(tag, pictures, fps, timesteps)

    def write_config(
        self,
        settings: dict[str, Any],
        vectorization: str | None,
        functions: Mapping[str, str] | None = None,
    ) -> None:
        """Write `config.json`: settings, versions, commit and the command.

        A resumed run keeps the versions that made it before.

        Args:
            settings: Settings of the run.
            vectorization: How simulations are stepped, as text.
            functions: What each setting that follows a Python function follows;
                `settings` has its largest value.

        Raises:
            ValueError: If it cannot be written.
        """
        self._settings = settings
        resumed = (self.path / "config.json").exists()
        made_by = read_versions(self.path) if resumed else []
        content = {
            "settings": settings,
            "vectorization": vectorization,
            "functions": dict(functions or {}),
            "made_by": list(dict.fromkeys([*made_by, version_and_commit()])),
            "versions": package_versions(),
            "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
        }
        try:
            self._write_json("config.json", content)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()
            raise folder_error(self.path, error) from error

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json` and TensorBoard's hyperparameter tab."""
        self._write_json("summary.json", summary)
        self._tensorboard.add_hyperparameters(self._settings, results(summary))

    def save_policy(
        self, name: str, trained: TrainedPolicy | TrainedParameters
    ) -> None:
        """Write `policy/NAME.npz`, whole or not at all."""
        path = self.path / "policy" / f"{name}.npz"
        unfinished = path.with_suffix(".unfinished")
        environment = {name: self._settings[name] for name in _ENVIRONMENT}
        if isinstance(trained, TrainedPolicy):
            save_policy(unfinished, trained, environment)
        else:
            save_parameters(unfinished, trained, environment)
        os.replace(unfinished, path)

    def close(self) -> None:
        """Flush and close the logs."""
        self._log.close()
        self._tensorboard.close()

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        unfinished = self.path / f"{name}.unfinished"
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(unfinished, self.path / name)


class _UnwrittenFolder(RunFolder):
    """The folder of a run in a process other than 0, which writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, *row: Any) -> None: ...

    def read_row(self, timesteps: int) -> dict[str, float]:
        del timesteps
        return {}

    def drop_row(self, timesteps: int) -> None: ...

    def log_video(self, *video: Any) -> None: ...

    def write_config(self, *settings: Any) -> None: ...

    def write_summary(self, summary: dict[str, Any]) -> None: ...

    def save_policy(self, *trained: Any) -> None: ...

    def close(self) -> None: ...


def open_folder(
    path: Path, columns: Mapping[str, str], resume_at: int | None = None
) -> RunFolder:
    """A `RunFolder`, which only process 0 of a run in several processes writes.

    Raises:
        ValueError: Same as `RunFolder`.
    """
    return RunFolder(path, columns, resume_at) if is_first() else _UnwrittenFolder(path)


def choose_folder(config: TrainConfig) -> Path:
    """The folder that the settings name, or a new one, the same in all processes."""
    # All processes must ask; that their settings differ is found out later.
    is_new = is_first() and config.logdir is None
    default = broadcast_from_process_0(str(_new_folder(config)) if is_new else "")
    return Path(config.logdir or default)


def _new_folder(config: TrainConfig) -> Path:
    """Make runs/ENV/AGENT-sSEED-TIME, with a number behind it if that folder exists.

    Raises:
        ValueError: If no folder can be made.
    """
    env = re.sub(r"[^A-Za-z0-9_.-]+", "-", config.env)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    first = Path("runs", env, f"{config.agent}-s{config.seed}-{stamp}")
    for count in itertools.count(1):
        folder = first if count == 1 else first.with_name(f"{first.name}-{count}")
        try:
            # Made here, so that a run that starts at the same time takes another.
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise folder_error(folder, error) from error
    raise AssertionError  # itertools.count never ends


@contextlib.contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder if the body raises and has left nothing in it but a lock."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
            folder.rmdir()
        raise

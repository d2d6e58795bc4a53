"""Reading the folder of a run: settings, summary, learning curves."""

import csv
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs.names import unknown_name
from pes_rl.run_folder.policy_files import read_environment
from pes_rl.runtime.csv_table import whole_lines


def read_config(path: Path) -> TrainConfig:
    """The settings of the run in the folder `path`.

    Settings that the version which made the run did not have get today's defaults.

    Raises:
        ValueError: If there is no run, or its settings are not those of this version.
    """
    file = path / "config.json"
    settings = _read_json(file).get("settings")
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: 'settings' is {settings!r} and must be an object")
    known = [field.name for field in fields(TrainConfig)]
    for name in settings:
        if name not in known:
            raise ValueError(
                f"{file}: {unknown_name('setting', name, known)}; a newer pes_rl may "
                "have made this run: read it with that version"
            )
    for name in ("env", "agent"):
        if name not in settings:
            raise ValueError(f"{file}: the setting {name!r} is missing")
    # JSON has lists only.
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
    }
    try:
        return TrainConfig(**values)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_source(path: Path, env: str | None = None, agent: str = "es") -> TrainConfig:
    """The settings of the run in a folder, or of the one that made a policy file.

    A policy file (npz) in a run's `policy/` has the run's settings; one elsewhere names
    its environment, and all other settings are the defaults.

    Args:
        path: The folder or the file.
        env: The environment of a file that does not name it.
        agent: Whose defaults are taken.

    Raises:
        ValueError: If there is no such file or run, or nothing names the environment.
    """
    if path.suffix != ".npz":
        return read_config(path)
    folder = find_run(path)
    if folder is not None:
        return read_config(folder)
    settings: dict[str, Any] = read_environment(path)
    if not settings and env is not None:
        settings = {"env": env}
    if "env" not in settings:
        raise ValueError(
            f"{path} is in no run folder and does not name its environment; name it by "
            "--env, or use the run folder"
        )
    try:
        options: dict[str, Any] = {k: v for k, v in settings.items() if k != "env"}
        return make_config(settings["env"], agent, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def find_run(path: Path) -> Path | None:
    """The run folder: `path`, or that of a policy file; None if it is in none."""
    if path.suffix != ".npz":
        return path
    folder = path.absolute().parents[1]
    return folder if (folder / "config.json").exists() else None


def read_functions(path: Path) -> dict[str, str]:
    """What each setting of the run follows that was a Python function.

    Raises:
        ValueError: If there is no run.
    """
    functions = _read_json(path / "config.json").get("functions", {})
    if not isinstance(functions, dict):
        return {}
    return {str(name): str(text) for name, text in functions.items()}


def find_checkpoint(resume: str | Path) -> tuple[Path, Literal["newest"] | int]:
    """The run and the checkpoint to resume from: RUN, or RUN/checkpoints/STEPS."""
    path = Path(resume)
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parents[1], int(path.name)
    return path, "newest"


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of the run in `path`, which must have ended.

    Raises:
        ValueError: If it cannot be read.
    """
    return _read_json(path / "summary.json")


def read_versions(path: Path) -> list[str]:
    """The versions of pes_rl that made the run in `path`, with the commits if known.

    Several where the run was resumed with another version; none in old runs.

    Raises:
        ValueError: If there is no run.
    """
    versions = _read_json(path / "config.json").get("made_by", [])
    return [str(version) for version in versions] if isinstance(versions, list) else []


def read_packages(path: Path) -> dict[str, str]:
    """The versions of the packages that made the run in `path`, by name.

    Raises:
        ValueError: If there is no run.
    """
    versions = _read_json(path / "config.json").get("versions", {})
    return {str(name): str(value) for name, value in versions.items()}


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a run.

    Raises:
        ValueError: If it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file.parent} is not a run folder (no readable {file.name}: {error}); "
            "use the folder that --logdir named"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} holds a {type(content).__name__} and must hold an object"
        )
    return content


def read_curve(path: Path, columns: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of a run's `progress.csv`, at the rows where all of them have a value.

    Raises:
        ValueError: If a column is missing, or a cell is not a number.
        OSError: If there is no such file.
    """
    file, columns = path / "progress.csv", list(columns)
    reader = csv.DictReader(whole_lines(file))
    if reader.fieldnames is None:  # The run was killed before it wrote the header.
        return {c: np.empty(0) for c in columns}
    missing = [c for c in columns if c not in reader.fieldnames]
    if missing:
        raise ValueError(f"{file} has no column {', '.join(missing)}")
    rows = [row for row in reader if all(row[c] for c in columns)]
    try:
        return {c: np.array([float(row[c]) for row in rows]) for c in columns}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error

"""Reading the folder of a run: settings, summary, learning curves."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.runtime.csv_table import whole_lines


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


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of the run in `path`, which must have ended."""
    return json.loads((path / "summary.json").read_text())


def read_versions(path: Path) -> list[str]:
    """The versions of pes_rl that made the run in `path`, with the commits if known.

    Several where the run was resumed with another version; none in old runs.
    """
    return json.loads((path / "config.json").read_text()).get("made_by", [])


def read_curve(path: Path, columns: Iterable[str]) -> dict[str, np.ndarray]:
    """Columns of a run's `progress.csv`, at the rows where all of them have a value."""
    reader = csv.DictReader(whole_lines(path / "progress.csv"))
    rows = [row for row in reader if all(row[c] for c in columns)]
    return {c: np.array([float(row[c]) for row in rows]) for c in columns}

"""Outcomes of a study's runs, from their folders or from the study's CSV."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.run_folder.reader import read_curve, read_summary
from pes_rl.studies.study import Study


@dataclass(frozen=True)
class Outcome:
    """Outcome of one run of a study.

    Attributes:
        arm: The arm that it belongs to.
        summary: Its `summary.json`, and `seconds_to_threshold`: wall time of the first
            evaluation that reached the threshold, or None.
        steps: Environment steps of its evaluations. # shape=(evaluations,)
        updates: Updates before them. # shape=(evaluations,)
        seconds: Wall time of them. # shape=(evaluations,)
        returns: What they gave. # shape=(evaluations,)
    """

    arm: str
    summary: dict[str, Any]
    steps: np.ndarray
    updates: np.ndarray
    seconds: np.ndarray
    returns: np.ndarray


def read_outcome(arm: str, folder: Path) -> Outcome:
    """The outcome of the run in `folder`."""
    summary = read_summary(folder)
    columns = (
        "time/total_timesteps",
        "time/iterations",
        "time/time_elapsed",
        "eval/mean_reward",
    )
    steps, updates, seconds, returns = read_curve(folder, columns).values()
    threshold = summary["threshold"]
    first = seconds[returns >= threshold][:1] if threshold is not None else []
    reached = float(first[0]) if len(first) else None
    summary["seconds_to_threshold"] = reached
    return Outcome(arm, summary, steps, updates, seconds, returns)


def read_curves(path: Path, study: Study) -> list[Outcome]:
    """The outcomes in a study's `curves.csv`; only the learning curves are there.

    A clock that older files have no column of is NaN, and the environment that they do
    not name is the study's only one.

    Raises:
        ValueError: If it is no such file.
    """
    thresholds = {run.config.env: run.config.threshold for run in study.runs}
    rows: dict[tuple[str, str, str], list[list[float]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                clocks = (row.get(name, "nan") for name in ("updates", "seconds"))
                values = [row["timesteps"], *clocks, row["mean_reward"]]
                env = row.get("env", study.envs[0])
                rows[env, row["arm"], row["seed"]].append([*map(float, values)])
        if not rows:
            raise ValueError("no rows")
        return [
            Outcome(
                arm,
                {"env": env, "seed": int(seed), "threshold": thresholds[env]},
                *np.transpose(of_run),
            )
            for (env, arm, seed), of_run in rows.items()
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no curves of this study: {error!r}") from error


def by_environment(outcomes: Sequence[Outcome]) -> dict[str, dict[str, list[Outcome]]]:
    """The outcomes by environment, then by arm."""
    grouped: dict[str, dict[str, list[Outcome]]] = {}
    for run in outcomes:
        arms = grouped.setdefault(run.summary["env"], {})
        arms.setdefault(run.arm, []).append(run)
    return grouped

"""The table and the figure of curves.csv."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from peers_environment import PACKAGES
from protocol import FINAL_EPISODES, TASKS

from pes_rl.graphics.figures import Panel, draw_learning_curves

LABELS = {
    "pes_rl": "pes_rl",
    "ars": "sb3-contrib's ARS",
    "ppo": "SB3's PPO",
    "sac": "SB3's SAC",
    "pgpe": "evotorch's PGPE with ClipUp",
}
MINUTES = (2.0, 5.0, 10.0, 20.0)
Row = dict[str, str]
Runs = dict[str, list[list[Row]]]
"""Rows of each complete run, by the arm."""


def write_report(curves: Path, out: Path) -> None:
    """Write table.md and curves.png, of complete runs alone."""
    tasks = read_tasks(curves)
    if not tasks:
        return
    lines = ["<!-- Written by run.py. -->"]
    for task, arms in tasks.items():
        lines += ["", f"### {TASKS[task]}", "", *table(arms)]
    lines += ["", f"Peers: {', '.join(PACKAGES).replace('==', ' ')}.", ""]
    (out / "table.md").write_text("\n".join(lines))
    panels = [
        Panel(
            TASKS[task],
            {LABELS[arm]: [curve(run) for run in runs] for arm, runs in arms.items()},
            x_label="minutes since the start of the process",
        )
        for task, arms in tasks.items()
    ]
    draw_learning_curves(out / "curves.png", panels, min(len(panels), 2))


def read_tasks(curves: Path) -> dict[str, Runs]:
    """The complete runs of each arm, by task, in the order of `TASKS` and `LABELS`."""
    runs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    with curves.open(newline="") as file:
        for row in csv.DictReader(file):
            runs[row["task"], row["arm"], row["seed"]].append(row)
    tasks: dict[str, Runs] = {}
    for task in TASKS:
        arms: Runs = {}
        for arm in LABELS:
            found = [rows for key, rows in runs.items() if key[:2] == (task, arm)]
            ended = [r for r in found if r[-1]["episodes"] == str(FINAL_EPISODES)]
            if ended:
                arms[arm] = ended
        if arms:
            tasks[task] = arms
    return tasks


def curve(run: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Minutes and returns of a run.

    One that ended before its minutes were over keeps its last return.
    """
    minutes = [float(row["seconds"]) / 60 for row in run]
    returns = [float(row["return"]) for row in run]
    end = float(run[-1]["minutes"])
    if minutes[-1] < end:
        minutes.append(end)
        returns.append(returns[-1])
    return np.array(minutes), np.array(returns)


def table(arms: Runs) -> list[str]:
    """A task's table: a row for each arm."""
    total = float(next(iter(arms.values()))[0][-1]["minutes"])
    times = [*(minutes for minutes in MINUTES if minutes < total), total]
    heads = [f"{minutes:g} min" for minutes in times]
    names = ["", "seeds", *heads, "environment steps", "evaluations"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for arm, runs in arms.items():
        curves = [curve(run) for run in runs]
        cells = [spread([float(np.interp(at, *run)) for run in curves]) for at in times]
        steps = np.mean([int(run[-1]["timesteps"]) for run in runs])
        share = np.mean([part_of_evaluations(run) for run in runs])
        last = [f"{steps:,.0f}", f"{share:.1%}"]
        row = [LABELS[arm], str(len(runs)), *cells, *last]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean (lowest to highest)."""
    mean = f"{np.mean(values):.0f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.0f} to {max(values):.0f})"


def part_of_evaluations(run: Sequence[Row]) -> float:
    """Share of a run's time that went into evaluations."""
    return float(run[-1]["evaluation_seconds"]) / float(run[-1]["seconds"])

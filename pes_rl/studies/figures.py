"""The figures of a study."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pes_rl.envs.names import is_unrolled
from pes_rl.graphics.figures import (
    Curve,
    Panel,
    against_mean_clock,
    draw_learning_curves,
    draw_reliability,
)
from pes_rl.studies.outcomes import Outcome, by_environment, read_curves
from pes_rl.studies.study import read_study


def redraw_study(folder: Path) -> None:
    """Draw the figures of a study's folder again, from its `curves.csv`.

    Raises:
        ValueError: If that, or `study.toml`, cannot be read.
    """
    study = read_study(folder / "study.toml")
    draw_study(study.title, read_curves(folder / "curves.csv", study), folder)


def draw_study(title: str, outcomes: Sequence[Outcome], out: Path) -> None:
    """Draw one panel per environment: return over steps, over seconds; reliability.

    Of unrolled problems losses are drawn, and over updates too: a derivative method
    takes one step in an update where another takes a population's.
    """
    by_env = by_environment(outcomes)
    columns = min(len(by_env), 3)
    unrolled = all(map(is_unrolled, by_env))
    clocks = {"steps": "environment steps", "seconds": "seconds"}
    if unrolled:
        clocks["updates"] = "updates"
    for clock, label in clocks.items():
        if np.isnan(getattr(outcomes[0], clock)).any():
            continue
        panels = []
        for env, arms in by_env.items():
            curves = {arm: _curves(runs, clock) for arm, runs in arms.items()}
            heading = title if len(by_env) == 1 else env
            threshold = next(iter(arms.values()))[0].summary["threshold"]
            panels.append(Panel(heading, curves, threshold, label, unrolled))
        draw_learning_curves(out / _FILES[clock], panels, columns)
        with_threshold = [panel for panel in panels if panel.threshold is not None]
        if clock == "steps" and with_threshold:
            draw_reliability(out / "reliability.png", with_threshold, columns)


_FILES = {"steps": "curves.png", "seconds": "wall_time.png", "updates": "updates.png"}


def _curves(runs: Sequence[Outcome], clock: str) -> list[Curve]:
    if clock == "seconds":
        return against_mean_clock([(r.steps, r.seconds, r.returns) for r in runs])
    return [(getattr(run, clock), run.returns) for run in runs]

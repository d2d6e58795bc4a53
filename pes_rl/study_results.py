"""What a study leaves: a table, two CSVs and figures."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean

from pes_rl.envs.registry import is_unrolled
from pes_rl.figures import Panel, draw_learning_curves, draw_reliability
from pes_rl.run_files import read_curve, read_makers, read_summary
from pes_rl.study import Study


@dataclass(frozen=True)
class Outcome:
    """What a run of a study came to.

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


def write_results(study: Study, runs_folder: Path, out: Path) -> None:
    """Write a complete study's `curves.csv`, `runs.csv`, `table.md` and figures."""
    outcomes = [
        read_outcome(run.arm, runs_folder / run.folder_name) for run in study.runs
    ]
    _write_curves(out / "curves.csv", outcomes)
    _write_runs(out / "runs.csv", outcomes)
    makers = makers_of(study, runs_folder)
    (out / "table.md").write_text(make_table(study.title, outcomes, makers))
    _draw(study, outcomes, out)


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


def makers_of(study: Study, runs_folder: Path) -> list[str]:
    """The versions and commits that made the study's runs, each once."""
    return list(
        dict.fromkeys(
            maker
            for run in study.runs
            for maker in read_makers(runs_folder / run.folder_name)
            or ["an older pes-rl, which did not say which"]
        )
    )


def _draw(study: Study, outcomes: list[Outcome], out: Path) -> None:
    """Draw a panel an environment: over steps, over seconds, and reliability.

    Of unrolled problems losses are drawn, and over updates too: a derivative method
    takes one step in an update where another takes a population's.
    """
    by_env = _grouped(outcomes)
    columns = min(len(by_env), 3)
    unrolled = all(map(is_unrolled, by_env))
    clocks = [
        ("steps", "environment steps", "curves.png"),
        ("seconds", "seconds", "wall_time.png"),
    ]
    if unrolled:
        clocks.append(("updates", "updates", "updates.png"))
    for clock, label, file in clocks:
        panels = []
        for env, arms in by_env.items():
            curves = {
                arm: [(getattr(run, clock), run.returns) for run in runs]
                for arm, runs in arms.items()
            }
            title = study.title if len(by_env) == 1 else env
            threshold = next(iter(arms.values()))[0].summary["threshold"]
            panels.append(Panel(title, curves, threshold, label, unrolled))
        draw_learning_curves(out / file, panels, columns)
        with_threshold = [panel for panel in panels if panel.threshold is not None]
        if clock == "steps" and with_threshold:
            draw_reliability(out / "reliability.png", with_threshold, columns)


def _grouped(outcomes: list[Outcome]) -> dict[str, dict[str, list[Outcome]]]:
    """The outcomes by environment, then by arm."""
    grouped: dict[str, dict[str, list[Outcome]]] = {}
    for run in outcomes:
        arms = grouped.setdefault(run.summary["env"], {})
        arms.setdefault(run.arm, []).append(run)
    return grouped


def _write_curves(path: Path, outcomes: list[Outcome]) -> None:
    _write_csv(
        path,
        ("env", "arm", "seed", "timesteps", "updates", "seconds", "mean_reward"),
        (
            (
                run.summary["env"],
                run.arm,
                run.summary["seed"],
                int(steps),
                int(updates),
                round(float(seconds), 1),
                _rounded(float(value)),
            )
            for run in outcomes
            for steps, updates, seconds, value in zip(
                run.steps, run.updates, run.seconds, run.returns, strict=True
            )
        ),
    )


def _write_runs(path: Path, outcomes: list[Outcome]) -> None:
    keys = (
        "env",
        "agent",
        "seed",
        "total_timesteps",
        "final_return",
        "final_return_std",
        "best_return",
        "timesteps_to_threshold",
        "seconds_to_threshold",
        "wall_seconds",
    )
    _write_csv(
        path,
        ("arm", *keys),
        ((run.arm, *(_rounded(run.summary[key]) for key in keys)) for run in outcomes),
    )


def _rounded(value: Any) -> Any:
    """A float to seven digits: losses of unrolled problems can be tiny."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _write_csv(
    path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def make_table(title: str, outcomes: list[Outcome], makers: list[str]) -> str:
    """The arms' final returns and when they reached the threshold, in Markdown."""
    by_env = _grouped(outcomes)
    lines = [f"# {title}"]
    for env, arms in by_env.items():
        threshold = next(iter(arms.values()))[0].summary["threshold"]
        goal = "the threshold" if threshold is None else f"{threshold:g}"
        if len(by_env) > 1:
            lines += ["", f"## {env}"]
        lines += [
            "",
            "| arm | seeds | final return: mean (95% interval) "
            "| interquartile mean (95% interval) | lowest to highest "
            f"| end at {goal} or more | reach it "
            "| median steps to it | median seconds to it |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_arm_row(arm, runs, threshold) for arm, runs in arms.items()),
        ]
    note = (
        "Final returns are means over fresh episodes with the last parameters; the "
        "intervals are those of the mean, and of the mean of the middle half, over "
        "seeds (bootstrap, 10,000 resamples). The medians are over the seeds that "
        "reached the threshold in an evaluation; seconds are wall time, of runs that "
        "shared the machine with as many others as --jobs let."
    )
    made = f"Made by {' and by '.join(makers)}."
    return "\n".join([*lines, "", note, "", made, ""])


def _arm_row(arm: str, runs: list[Outcome], threshold: float | None) -> str:
    final = np.array([run.summary["final_return"] for run in runs])
    if threshold is None:
        above = "-"
    else:
        count = np.sum(final >= threshold)
        above = f"{count} ({count / len(final):.0%})"
    steps = _values(runs, "timesteps_to_threshold")
    seconds = _values(runs, "seconds_to_threshold")
    cells = (
        arm,
        len(runs),
        f"{short(final.mean())} ({interval(final, np.mean)})",
        f"{short(interquartile_mean(final))} ({interval(final, interquartile_mean)})",
        f"{short(final.min())} to {short(final.max())}",
        above,
        len(steps),
        f"{np.median(steps):,.0f}" if steps else "-",
        f"{np.median(seconds):,.1f}" if seconds else "-",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _values(runs: list[Outcome], key: str) -> list[float]:
    values = (run.summary[key] for run in runs)
    return [value for value in values if value is not None]


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean without the lowest and the highest quarter (rounded down) of the values.

    References: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
    Statistical Precipice", Section 4.3.
    """
    return trim_mean(values, 0.25, axis=axis)


def interval(values: np.ndarray, statistic: Any) -> str:
    """95% interval by the percentile bootstrap; a dash for one value."""
    if len(values) < 2:
        return "-"
    drawn = bootstrap(
        (values,), statistic, n_resamples=10_000, method="percentile", rng=0
    )
    low, high = drawn.confidence_interval
    return f"{short(low)} to {short(high)}"


def short(value: Any) -> str:
    """As people read returns: 355.4, but -1.6e-14 and 3.5e+15."""
    return f"{value:.1f}" if 1 <= abs(value) < 1e7 else f"{value:.2g}"

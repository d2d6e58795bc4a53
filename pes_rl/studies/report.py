"""The results of a study: a table, two CSV files, what made them, and figures."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean

from pes_rl.run_folder.provenance import describe_maker, record_maker
from pes_rl.run_folder.reader import read_packages, read_versions
from pes_rl.runtime.csv_table import write_csv
from pes_rl.studies.figures import draw_study
from pes_rl.studies.outcomes import Outcome, by_environment, read_outcome
from pes_rl.studies.study import Study


def write_results(study: Study, runs_folder: Path, out: Path) -> None:
    """Write a complete study's CSV files, `table.md`, `made.json` and figures."""
    outcomes = [
        read_outcome(run.arm, runs_folder / run.folder_name) for run in study.runs
    ]
    _write_curves(out / "curves.csv", outcomes)
    _write_runs(out / "runs.csv", outcomes)
    makers = versions_of(study, runs_folder)
    maker = describe_maker(makers, _packages_of(study, runs_folder))
    record_maker(out, ["curves.csv", "runs.csv"], maker)
    table = make_table(study.title, outcomes, makers)
    (out / "table.md").write_text(table, "utf-8")
    draw_study(study.title, outcomes, out)


def versions_of(study: Study, runs_folder: Path) -> list[str]:
    """The versions and commits of pes_rl that made the study's runs, each once."""
    return list(
        dict.fromkeys(
            maker
            for run in study.runs
            for maker in read_versions(runs_folder / run.folder_name)
            or ["an older pes-rl, which did not say which"]
        )
    )


def _packages_of(study: Study, runs_folder: Path) -> dict[str, str]:
    """The versions of packages that made the runs; several where runs differ."""
    found: dict[str, list[str]] = {}
    for run in study.runs:
        for name, number in read_packages(runs_folder / run.folder_name).items():
            if number not in found.setdefault(name, []):
                found[name].append(number)
    return {name: " and ".join(numbers) for name, numbers in found.items()}


def _write_curves(path: Path, outcomes: list[Outcome]) -> None:
    columns = ("env", "arm", "seed", "timesteps", "updates", "seconds", "mean_reward")
    rows = (
        {
            "env": run.summary["env"],
            "arm": run.arm,
            "seed": run.summary["seed"],
            "timesteps": int(steps),
            "updates": int(updates),
            "seconds": round(float(seconds), 1),
            "mean_reward": _rounded(float(value)),
        }
        for run in outcomes
        for steps, updates, seconds, value in zip(
            run.steps, run.updates, run.seconds, run.returns, strict=True
        )
    )
    write_csv(path, columns, rows)


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
    rows = (
        {"arm": run.arm, **{key: _rounded(run.summary[key]) for key in keys}}
        for run in outcomes
    )
    write_csv(path, ("arm", *keys), rows)


def _rounded(value: Any) -> Any:
    """A float rounded to seven significant digits; losses can be tiny."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def make_table(title: str, outcomes: list[Outcome], makers: list[str]) -> str:
    """The arms' final returns and when they reached the threshold, in Markdown."""
    by_env = by_environment(outcomes)
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
    """A return as text, with few digits: 355.4, -1.6e-14, 3.5e+15."""
    return f"{value:.1f}" if 1 <= abs(value) < 1e7 else f"{value:.2g}"

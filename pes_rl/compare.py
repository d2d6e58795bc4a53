"""Compare agents over seeds: `python -m pes_rl.compare results/swimmer/study.toml`."""

import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from scipy.stats import bootstrap

from pes_rl.config import TrainConfig
from pes_rl.figures import Curve, draw_learning_curves, draw_reliability
from pes_rl.progress import Progress
from pes_rl.run_folder import read_curve, read_settings
from pes_rl.study import (
    Study,
    StudyRun,
    make_study,
    read_study,
    settings_that_matter,
)
from pes_rl.trainer import Trainer


@dataclass(frozen=True)
class CompareOptions:
    """Train every agent on every seed, and write a table, CSVs and a figure."""

    study: tyro.conf.Positional[str | None] = None
    """TOML file of the study (see pes_rl/study.py); without one, use the options."""
    env: str = "swimmer"
    """Environment, without a study file."""
    agents: tuple[str, ...] = ("pes", "es", "truncated-es")
    """Agents, each with the environment's default settings, without a study file."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, without a study file."""
    total_timesteps: int | None = None
    """Budget of every run in environment steps, without a study file."""
    out: str | None = None
    """Folder of the results; None takes the study file's, or runs/compare-ENV."""
    jobs: int = os.cpu_count() or 1
    """Runs at the same time, each on one thread."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = tyro.cli(CompareOptions, args=arguments, prog="python -m pes_rl.compare")
    try:
        if options.jobs < 1:
            raise ValueError(f"jobs={options.jobs} must be at least 1")
        study, out = _read_options(options)
        out.mkdir(parents=True, exist_ok=True)
        runs = Path("runs") / "compare" / "-".join(out.absolute().parts[-2:])
        run_study(study, runs, options.jobs)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the runs that are missing")
        return 130
    write_results(study, runs, out)
    print((out / "table.md").read_text())
    print(f"results: {out}")
    return 0


def _read_options(options: CompareOptions) -> tuple[Study, Path]:
    if options.study is not None:
        path = Path(options.study)
        return read_study(path), Path(options.out or path.parent)
    budget = options.total_timesteps
    study = make_study(
        options.env,
        options.agents,
        options.seeds,
        {} if budget is None else {"total_timesteps": budget},
    )
    name = options.env.replace(":", "-")
    return study, Path(options.out or f"runs/compare-{name}")


def run_study(study: Study, runs_folder: Path, jobs: int) -> None:
    """Train the study's runs that are not yet complete, several at a time.

    Each run has its folder in `runs_folder`. A run that was cut off, or that was made
    with other settings, is made again from its start.
    """
    missing = [run for run in study.runs if not _is_complete(run, runs_folder)]
    done = len(study.runs) - len(missing)
    context = multiprocessing.get_context("spawn")
    with (
        Progress(study.title, len(study.runs), "runs") as progress,
        ProcessPoolExecutor(
            jobs, context, _share_compilations, (runs_folder.absolute(),)
        ) as pool,
    ):
        progress.update(done, "")
        futures = {
            pool.submit(_train, run.config, runs_folder / run.folder_name): run
            for run in missing
        }
        try:
            for future in as_completed(futures):
                done += 1
                name = futures[future].folder_name
                progress.update(done, f"{name}: return {future.result():.1f}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_complete(run: StudyRun, runs_folder: Path) -> bool:
    folder = runs_folder / run.folder_name
    if not (folder / "summary.json").exists() or _summary(folder)["interrupted"]:
        return False
    made_with = TrainConfig(**read_settings(folder))
    return settings_that_matter(made_with) == settings_that_matter(run.config)


def _share_compilations(runs_folder: Path) -> None:
    """Let the study's processes share compilations: seeds differ in numbers only."""
    jax.config.update("jax_compilation_cache_dir", str(runs_folder / "compilations"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _train(config: TrainConfig, folder: Path) -> float:
    """One run, in a process of its own; returns its final return."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with (folder / "output.txt").open("w") as file, contextlib.redirect_stdout(file):
        result = Trainer(replace(config, num_threads=1), folder).run()
    return result.summary["final_return"]


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def write_results(study: Study, runs_folder: Path, out: Path) -> None:
    """Write a complete study's `curves.csv`, `runs.csv`, `table.md` and figures."""
    curves: dict[str, list[Curve]] = {arm: [] for arm in study.arms}
    summaries: dict[str, list[dict[str, Any]]] = {arm: [] for arm in study.arms}
    for run in study.runs:
        folder = runs_folder / run.folder_name
        columns = ("time/total_timesteps", "eval/mean_reward")
        curve = read_curve(folder, columns)
        curves[run.arm].append((curve[columns[0]], curve[columns[1]]))
        summaries[run.arm].append(_summary(folder))
    threshold = study.runs[0].config.threshold
    _write_curves(out / "curves.csv", study, curves)
    _write_runs(out / "runs.csv", study, summaries)
    (out / "table.md").write_text(make_table(study.title, summaries, threshold))
    draw_learning_curves(out / "curves.png", curves, study.title, threshold)
    if threshold is not None:
        draw_reliability(out / "reliability.png", curves, study.title, threshold)


def _write_curves(path: Path, study: Study, curves: dict[str, list[Curve]]) -> None:
    seeds = _seeds(study)
    _write_csv(
        path,
        ("arm", "seed", "timesteps", "mean_reward"),
        (
            (arm, seed, int(steps), round(float(value), 3))
            for arm, runs in curves.items()
            for seed, run in zip(seeds[arm], runs, strict=True)
            for steps, value in zip(*run, strict=True)
        ),
    )


def _write_runs(
    path: Path, study: Study, summaries: dict[str, list[dict[str, Any]]]
) -> None:
    keys = (
        "agent",
        "seed",
        "total_timesteps",
        "final_return",
        "final_return_std",
        "best_return",
        "timesteps_to_threshold",
        "wall_seconds",
    )
    _write_csv(
        path,
        ("arm", *keys),
        (
            (arm, *(_rounded(summary[key]) for key in keys))
            for arm in study.arms
            for summary in summaries[arm]
        ),
    )


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _write_csv(
    path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _seeds(study: Study) -> dict[str, list[int]]:
    return {
        arm: [run.config.seed for run in study.runs if run.arm == arm]
        for arm in study.arms
    }


def make_table(
    title: str, summaries: dict[str, list[dict[str, Any]]], threshold: float | None
) -> str:
    """The arms' final returns and when they reached the threshold, in Markdown."""
    lines = [
        f"# {title}",
        "",
        "| arm | seeds | final return: mean (95% interval) | lowest to highest "
        f"| end at {threshold} or more | reach it | median steps to it |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, runs in summaries.items():
        final = np.array([run["final_return"] for run in runs])
        reached = [
            run["timesteps_to_threshold"]
            for run in runs
            if run["timesteps_to_threshold"] is not None
        ]
        above = "-" if threshold is None else f"{np.sum(final >= threshold)}"
        median = f"{np.median(reached):,.0f}" if reached else "-"
        lines.append(
            f"| {arm} | {len(runs)} | {final.mean():.1f} ({_interval(final)}) "
            f"| {final.min():.1f} to {final.max():.1f} | {above} | {len(reached)} "
            f"| {median} |"
        )
    note = (
        "Final returns are means over fresh episodes with the last parameters; the "
        "interval is that of the mean over seeds (bootstrap, 10,000 resamples). The "
        "median is over the seeds that reached the threshold in an evaluation."
    )
    return "\n".join([*lines, "", note, ""])


def _interval(values: np.ndarray) -> str:
    """95% interval of the mean by the percentile bootstrap; a dash for one value."""
    if len(values) < 2:
        return "-"
    drawn = bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=0
    )
    low, high = drawn.confidence_interval
    return f"{low:.1f} to {high:.1f}"


if __name__ == "__main__":
    sys.exit(main())

"""Compare agents over seeds: `python -m pes_rl.compare results/swimmer/study.toml`."""

import contextlib
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import jax
import tyro

from pes_rl.assembly import Assembly, assemble
from pes_rl.config import TrainConfig
from pes_rl.progress import Progress
from pes_rl.run_folder import read_settings, read_summary
from pes_rl.study import (
    Study,
    StudyRun,
    make_study,
    read_study,
    settings_that_matter,
)
from pes_rl.study_results import makers_of, short, write_results
from pes_rl.trainer import Trainer


@dataclass(frozen=True)
class CompareOptions:
    """Train agents on environments and seeds; write a table, CSVs and figures."""

    study: tyro.conf.Positional[str | None] = None
    """TOML file of the study (see pes_rl/study.py); without one, use the options."""
    env: tuple[str, ...] = ("swimmer",)
    """Environments, without a study file."""
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
    if len(makers := makers_of(study, runs)) > 1:
        print(f"warning: runs made by {' and by '.join(makers)}", file=sys.stderr)
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
    name = "-".join(options.env).replace(":", "-")
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
            jobs, context, share_compilations, (runs_folder.absolute(),)
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
                progress.update(done, f"{name}: return {short(future.result())}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_complete(run: StudyRun, runs_folder: Path) -> bool:
    folder = runs_folder / run.folder_name
    if not (folder / "summary.json").exists() or read_summary(folder)["interrupted"]:
        return False
    made_with = TrainConfig(**read_settings(folder))
    return settings_that_matter(made_with) == settings_that_matter(run.config)


def share_compilations(runs_folder: Path) -> None:
    """Let the study's processes share compilations: seeds differ in numbers only."""
    jax.config.update("jax_compilation_cache_dir", str(runs_folder / "compilations"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _train(config: TrainConfig, folder: Path) -> float:
    """One run, in a process of its own; returns its final return."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    config = replace(config, num_threads=1)
    with (folder / "output.txt").open("w") as file, contextlib.redirect_stdout(file):
        assembly = assemble_once(replace(config, seed=0))
        result = Trainer(config, folder, assembly=assembly).run()
    return result.summary["final_return"]


@lru_cache(maxsize=1)
def assemble_once(config: TrainConfig) -> Assembly:
    """The parts of the process's run, kept for the next seed with all they compiled."""
    return assemble(config)


if __name__ == "__main__":
    sys.exit(main())

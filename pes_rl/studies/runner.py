"""Training of a study's runs in several processes."""

import contextlib
import multiprocessing
import shutil
from concurrent.futures import as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

from pes_rl.assembly.assemble import assemble
from pes_rl.assembly.assembly import Assembly
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs.names import is_in_jax
from pes_rl.learner.evaluation import Evaluation
from pes_rl.run_folder.reader import read_config, read_summary
from pes_rl.runtime.progress import Progress
from pes_rl.studies.report import short
from pes_rl.studies.study import Study, StudyRun, settings_that_matter
from pes_rl.studies.worker_pool import block_ctrl_c, worker_pool
from pes_rl.training.callbacks import Callback, Run
from pes_rl.training.lockstep import run_together
from pes_rl.training.result import Result
from pes_rl.training.trainer import Trainer


def run_study(
    study: Study, runs_folder: Path, jobs: int, evaluations: int | None = None
) -> None:
    """Train those runs of a study that are not complete yet, several at a time.

    Each run has its folder in `runs_folder`. A run that was interrupted, or that was
    made with other settings, is trained again from its start. Where a run fails, for
    its settings for example, the others are trained all the same.

    Args:
        study: The study.
        runs_folder: Where the folders of the runs are.
        jobs: Processes that train at the same time.
        evaluations: Stop each run after that many evaluations behind its start, with
            the schedules of its whole budget; None trains to the end.

    Raises:
        ValueError: At the end, if runs failed.
    """
    missing = [run for run in study.runs if not _is_complete(run, runs_folder)]
    done = len(study.runs) - len(missing)
    failures: list[str] = []
    with (
        Progress(study.title, len(study.runs), "runs") as progress,
        worker_pool(jobs) as pool,
    ):
        progress.update(done, "")
        with block_ctrl_c():
            futures = {
                pool.submit(_train, group, runs_folder, evaluations): group
                for group in _in_groups(missing, jobs)
            }
        for future in as_completed(futures):
            runs = futures[future]
            try:
                values = future.result()
            except (ValueError, OSError) as error:
                failures += [f"{run.folder_name}: {error}" for run in runs]
                progress.say(f"{failures[-1]} (this run failed; the others go on)")
                continue
            for run, value in zip(runs, values, strict=True):
                done += 1
                progress.update(done, f"{run.folder_name}: return {short(value)}")
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(missing)} runs failed, the first is "
            f"{failures[0]}; the same command trains only what is missing"
        )


def _in_groups(runs: list[StudyRun], jobs: int) -> list[list[StudyRun]]:
    """Groups of runs that one process trains: single runs, or seeds of an arm."""
    arms: dict[Any, list[StudyRun]] = {}
    for run in runs:
        key = (run.arm, run.config.env) if run.vmap_seeds else run.folder_name
        arms.setdefault(key, []).append(run)
    groups = []
    for seeds in arms.values():
        size = -(-len(seeds) // jobs)
        groups += [seeds[at : at + size] for at in range(0, len(seeds), size)]
    return groups


def _is_complete(run: StudyRun, runs_folder: Path) -> bool:
    folder = runs_folder / run.folder_name
    if not (folder / "summary.json").exists():
        return False
    summary = read_summary(folder)
    if summary["interrupted"] or summary["final_return"] is None:
        return False
    made_with = read_config(folder)
    return settings_that_matter(made_with) == settings_that_matter(run.config)


class _StopAfter(Callback):
    """Ends a run after some evaluations, the one of its start not counted."""

    def __init__(self, evaluations: int) -> None:
        self._left = evaluations

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        self._left -= run.timesteps > 0
        if self._left == 0:
            run.request_stop("the number of evaluations asked for")


def _train(
    runs: list[StudyRun], runs_folder: Path, evaluations: int | None
) -> list[float]:
    """Train runs that differ only in their seeds; returns their final returns."""
    folders = [runs_folder / run.folder_name for run in runs]
    configs = [replace(run.config, num_threads=1) for run in runs]
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    assembly = assemble_once(replace(configs[0], seed=0))
    traceable = {assembly.learner.run, assembly.evaluate}
    if is_in_jax(configs[0].final_eval_env or configs[0].env):
        traceable.add(assembly.evaluate_finally)
    if len(runs) > 1:
        seeds = ", ".join(str(config.seed) for config in configs)
        assembly = replace(assembly, vectorization=f"seeds {seeds} in lock-step")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((f / "output.txt").open("w")) for f in folders]
        stack.enter_context(contextlib.redirect_stdout(files[0]))
        trainers = [
            Trainer(
                config,
                folder,
                assembly=assembly,
                callbacks=() if evaluations is None else [_StopAfter(evaluations)],
            )
            for config, folder in zip(configs, folders, strict=True)
        ]
        steps = [t.steps(file) for t, file in zip(trainers, files, strict=True)]
        results = run_together(steps, traceable)
    return [
        final_return(t, result) for t, result in zip(trainers, results, strict=True)
    ]


def final_return(trainer: Trainer, result: Result) -> float:
    """The final return of a run.

    Raises:
        ValueError: If the run could not continue, or no evaluation succeeded.
    """
    value = result.summary["final_return"]
    if trainer.failure is not None or value is None:
        problem = trainer.failure or "no evaluation succeeded; its output.txt says why"
        raise ValueError(f"run {result.folder}: {problem}")
    return value


@lru_cache(maxsize=1)
def assemble_once(config: TrainConfig) -> Assembly:
    """The assembly of a run, kept with its compiled programs for the next seed."""
    if multiprocessing.parent_process() is not None:
        # A worker that kept all programs of a study would run out of memory maps.
        jax.clear_caches()
    return assemble(config)

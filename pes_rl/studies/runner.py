"""Trains the runs of a study, several processes at a time."""

import contextlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

from pes_rl.assembly.assemble import Assembly, assemble
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs.names import is_in_jax
from pes_rl.run_folder.reader import read_settings, read_summary
from pes_rl.runtime.progress import Progress
from pes_rl.studies.report import short
from pes_rl.studies.study import Study, StudyRun, settings_that_matter
from pes_rl.training.lockstep import run_together
from pes_rl.training.recorder import Result
from pes_rl.training.trainer import Trainer


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
            jobs, context, prepare_process, (runs_folder.absolute(), jobs)
        ) as pool,
    ):
        progress.update(done, "")
        with ctrl_c_later():
            futures = {
                pool.submit(_train, group, runs_folder): group
                for group in _in_groups(missing, jobs)
            }
        try:
            for future in as_completed(futures):
                for run, value in zip(futures[future], future.result(), strict=True):
                    done += 1
                    note = f"{run.folder_name}: return {short(value)}"
                    progress.update(done, note)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                end_processes()
            raise


def _in_groups(runs: list[StudyRun], jobs: int) -> list[list[StudyRun]]:
    """What a process trains at once: a run, or seeds of an arm in lock-step."""
    alike: dict[Any, list[StudyRun]] = {}
    for run in runs:
        key = (run.arm, run.config.env) if run.vmap_seeds else run.folder_name
        alike.setdefault(key, []).append(run)
    groups = []
    for seeds in alike.values():
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
    made_with = TrainConfig(**read_settings(folder))
    return settings_that_matter(made_with) == settings_that_matter(run.config)


def prepare_process(runs_folder: Path, jobs: int) -> None:
    """Let the study's processes share compilations and the CPUs.

    Seeds differ in numbers only. XLA, which reads NPROC when it starts, would take all
    CPUs in each of the processes, and cut arrays of a few hundred particles between
    them, which costs more than it brings.
    """
    os.environ["NPROC"] = str(max(1, (os.cpu_count() or 1) // jobs))
    jax.config.update("jax_compilation_cache_dir", str(runs_folder / "compilations"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@contextlib.contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Keep Ctrl-C from this process for now, and for good from those it starts here.

    They would show a traceback each, or take it for the end of one run and begin the
    next; `end_processes` ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_processes() -> None:
    """End the study's processes where they are."""
    for process in multiprocessing.active_children():
        process.terminate()


def _train(runs: list[StudyRun], runs_folder: Path) -> list[float]:
    """Runs that differ in their seeds alone, in a process; their final returns."""
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
            Trainer(config, folder, assembly=assembly)
            for config, folder in zip(configs, folders, strict=True)
        ]
        steps = [t.steps(file) for t, file in zip(trainers, files, strict=True)]
        results = run_together(steps, traceable)
    return [
        final_return(t, result) for t, result in zip(trainers, results, strict=True)
    ]


def final_return(trainer: Trainer, result: Result) -> float:
    """What a run came to.

    Raises:
        ValueError: If it could not go on to its end, or no evaluation succeeded.
    """
    value = result.summary["final_return"]
    if trainer.failure is not None or value is None:
        problem = trainer.failure or "no evaluation succeeded; its output.txt says why"
        raise ValueError(f"run {result.folder}: {problem}")
    return value


@lru_cache(maxsize=1)
def assemble_once(config: TrainConfig) -> Assembly:
    """The parts of the process's run, kept for the next seed with all they compiled."""
    return assemble(config)

"""Train a policy: `python -m pes_rl.train --env swimmer`."""

import argparse
import dataclasses
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs import EngineLost
from pes_rl.envs.registry import native_equivalent
from pes_rl.run_folder.reader import read_config
from pes_rl.run_folder.writer import choose_folder, removed_if_empty
from pes_rl.runtime.command_line import read_options, run_command
from pes_rl.runtime.early_interrupt import ending_at_once
from pes_rl.runtime.multihost import Cluster, abort_process, is_first
from pes_rl.runtime.output import print_line
from pes_rl.training.signals import stopping_on_signals

if TYPE_CHECKING:
    from pes_rl.training.recorder import Result
    from pes_rl.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class _CommandLine(TrainConfig):
    """Settings of a run, and options that only the command line has."""

    resume: str | None = None
    """Folder of a run to resume: from its newest checkpoint (RUN), or from an earlier
    one (RUN/checkpoints/STEPS). Its own settings are the defaults of all options. A run
    without a checkpoint starts again."""
    coordinator_address: str | None = None
    """Train in several processes, on one or more machines, each started with this
    command: HOST:PORT of process 0, the same for all, or auto under Slurm, Open MPI or
    on TPUs. For environments written in JAX. All processes must see the run folder."""
    num_processes: int | None = None
    """Number of processes; None where the launcher tells JAX."""
    process_id: int | None = None
    """Number of this process, from 0; None where the launcher tells JAX. Process 0
    evaluates, logs and prints."""

    def __post_init__(self) -> None:
        """Skip the checks: tyro would print their errors in boxes of several lines."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_command(
        lambda: _train(sys.argv[1:] if arguments is None else arguments),
        # From the first update on `stopping_on_signals` answers.
        lambda: "stopped before training began",
    )


def _train(arguments: list[str]) -> int:
    config, resume, cluster = parse(arguments)
    try:
        return _train_as(config, resume, cluster)
    except ValueError:  # Before the first update, and in all processes.
        raise
    except BaseException as error:
        if jax.distributed.is_initialized():
            abort_process(error)
        raise


def _train_as(config: TrainConfig, resume: str | None, cluster: Cluster) -> int:
    """Train in this process, which may be one of several of the run."""
    # Only now: it takes seconds, and help texts and misspelt options do not need it.
    with ending_at_once():
        from pes_rl.training.trainer import Trainer

    cluster.join()
    if resume is None:
        folder, at = choose_folder(config), None
    else:
        folder, at = _find_checkpoint(resume)
    try:
        with removed_if_empty(folder):
            trainer = Trainer(config, folder, at)
    except EngineLost as error:
        raise ValueError(error) from error
    if is_first():
        _print_beginning(config, trainer)
    with stopping_on_signals(trainer):
        result = _run(trainer, folder)
        if is_first():
            _print_result(result)
    if is_first() and not trainer.has_saved:
        print_line(f"error: nothing of the run could be saved in {folder}", error=True)
        return 1
    if trainer.failure is not None:
        print_line(f"error: {trainer.failure}", error=True)
        return 1
    if result.summary["interrupted"]:
        return 128 + signal.Signals[result.summary["ended_by"]]
    return 0


def _run(trainer: "Trainer", folder: Path) -> "Result":
    try:
        return trainer.run()
    except Exception as error:  # The settings were checked before.
        raise RuntimeError(
            f"training ended by an error after {trainer.timesteps:,} environment "
            f"steps; from its last checkpoint it continues with --resume {folder}"
        ) from error


def parse(arguments: list[str]) -> tuple[TrainConfig, str | None, Cluster]:
    """The settings, the run to resume and the processes, from the arguments.

    Task and agent are read first, because all other defaults, which --help shows,
    depend on them.

    Raises:
        ValueError: If a setting is bad.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--env", default=None)
    first.add_argument("--agent", default=None)
    first.add_argument("--resume", default=None)
    known, _ = first.parse_known_args(arguments)
    if known.resume is not None:
        base = read_config(_find_checkpoint(known.resume)[0])
    else:
        base = make_config(known.env or "swimmer", known.agent or "pes")
    default = _CommandLine(**dataclasses.asdict(base), resume=known.resume)
    parsed = read_options(
        _CommandLine,
        arguments,
        "train",
        default=default,
        description="Train a policy, or the parameters of an unrolled problem.\n\n"
        "Defaults are those of the given --env and --agent.",
    )
    settings = dataclasses.asdict(parsed)
    resume = settings.pop("resume")
    cluster = Cluster(**{f.name: settings.pop(f.name) for f in fields(Cluster)})
    return TrainConfig(**settings), resume, cluster


def _find_checkpoint(resume: str) -> tuple[Path, Literal["newest"] | int]:
    """The run and the checkpoint that `--resume` names: RUN, RUN/checkpoints/STEPS."""
    path = Path(resume)
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parents[1], int(path.name)
    return path, "newest"


def _print_beginning(config: TrainConfig, trainer: "Trainer") -> None:
    if name := native_equivalent(config.env):
        print_line(f"note: --env {name} is the same task, stepped natively and faster")
    if trainer.vectorization is not None:
        print_line(f"simulations: {trainer.vectorization}")


def _print_result(result: "Result") -> None:
    summary: dict[str, Any] = result.summary
    if summary["interrupted"]:
        print_line(f"stopped; continue with --resume {result.folder}")
    took = (
        f"{summary['total_timesteps']:,} environment steps in "
        f"{summary['wall_seconds']:.0f} s"
    )
    if summary["final_return"] is not None:
        print_line(
            f"return {summary['final_return']:.5g} +- "
            f"{summary['final_return_std']:.3g} over {summary['final_episodes']} "
            f"episodes after {took}"
        )
    elif summary["last_return"] is not None:
        print_line(
            f"no final evaluation after {took}; the last one, at "
            f"{summary['last_return_timesteps']:,} steps, had a return of "
            f"{summary['last_return']:.5g}"
        )
    else:
        print_line(f"no evaluation succeeded in {took}, so there is no return to show")
    print_line(f"run folder: {result.folder}")
    print_line(f"curves:     tensorboard --logdir {result.folder}")

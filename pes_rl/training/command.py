"""Train a policy: `python -m pes_rl.train --env swimmer`."""

import argparse
import dataclasses
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from pes_rl.config.checks import check_resumed
from pes_rl.config.defaults import default_agent
from pes_rl.config.train_config import TrainConfig, make_config, make_fitted_config
from pes_rl.envs import EngineLost
from pes_rl.envs.registry import has_faster_backend, native_equivalent
from pes_rl.run_folder.reader import (
    find_checkpoint,
    read_config,
    read_functions,
)
from pes_rl.run_folder.writer import choose_folder, removed_if_empty
from pes_rl.runtime.command_line import run_command
from pes_rl.runtime.early_interrupt import ending_at_once
from pes_rl.runtime.multihost import Cluster, abort_process, is_first
from pes_rl.runtime.option_groups import read_grouped_options
from pes_rl.runtime.output import print_line
from pes_rl.runtime.waiting import waiting
from pes_rl.training.signals import stopping_on_signals

if TYPE_CHECKING:
    from pes_rl.training.result import Result
    from pes_rl.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class _CommandLine(TrainConfig):
    """Train a policy, or the parameters of an unrolled problem.

    Defaults are those of the given --env and --agent.
    """

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


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command is to do.

    Attributes:
        config: The settings, before the environment has been asked for its time limit.
        cluster: The processes of the run.
        given: The settings that the user chose for a new run, as options.
        resume: The run to resume; None for a new one.
    """

    config: TrainConfig
    cluster: Cluster
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    resume: str | None = None


_GROUPS = {
    "env": "run",
    "num_pairs": "estimator",
    "optimizer": "optimizer",
    "normalize_observations": "policy",
    "horizon": "environment",
    "devices": "scaling",
    "eval_interval": "evaluation_and_logs",
    "logdir": "run",
    "coordinator_address": "scaling",
}
"""The group of the help text that begins with each option."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_command(
        lambda: _train(sys.argv[1:] if arguments is None else arguments),
        # From the first update on `stopping_on_signals` answers.
        lambda: "stopped before training began",
    )


def _train(arguments: list[str]) -> int:
    request = parse(arguments)
    try:
        return _train_as(request)
    except ValueError:  # Before the first update, and in all processes.
        raise
    except BaseException as error:
        if jax.distributed.is_initialized():
            abort_process(error)
        raise


def _train_as(request: Request) -> int:
    """Train in this process, which may be one of several of the run."""
    cluster, env = request.cluster, request.config.env
    is_other = cluster.coordinator_address is not None and cluster.process_id != 0
    with waiting(f"loading {env}", silent=is_other):
        trainer, folder = _make_trainer(request)
    if is_first():
        _print_beginning(request.config, trainer)
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


def _make_trainer(request: Request) -> tuple["Trainer", Path]:
    """The trainer and its folder, once all processes have joined."""
    # Only now: it takes seconds, and help texts and misspelt options do not need it.
    with ending_at_once():
        from pes_rl.training.trainer import Trainer

    request.cluster.join()
    if request.resume is None:
        # Only now, because it may start JAX, which has to join before.
        config = make_fitted_config(**request.given)
        folder, at = choose_folder(config), None
    else:
        config = request.config
        folder, at = find_checkpoint(request.resume)
    try:
        with removed_if_empty(folder):
            return Trainer(config, folder, at), folder
    except EngineLost as error:
        raise ValueError(error) from error


def _run(trainer: "Trainer", folder: Path) -> "Result":
    try:
        return trainer.run()
    except Exception as error:  # The settings were checked before.
        raise RuntimeError(
            f"training ended by an error after {trainer.timesteps:,} environment "
            f"steps; from its last checkpoint it continues with --resume {folder}"
        ) from error


def parse(arguments: list[str]) -> Request:
    """What the arguments ask for.

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
        run, _ = find_checkpoint(known.resume)
        base = read_config(run)
        for name, text in read_functions(run).items():
            raise ValueError(
                f"{name} of {run} follows {text}, which no file holds; resume it in "
                f"Python: pes_rl.train(resume={str(run)!r}, {name}=FUNCTION)"
            )
    else:
        agent = known.agent or default_agent(known.env, _named_options(arguments))
        base = make_config(known.env or "swimmer", agent)
    default = _CommandLine(**dataclasses.asdict(base), resume=known.resume)
    parsed = read_grouped_options(default, _GROUPS, arguments, "train")
    settings = dataclasses.asdict(parsed)
    resume = settings.pop("resume")
    cluster = Cluster(**{f.name: settings.pop(f.name) for f in fields(Cluster)})
    named = _named_options(arguments)
    if resume is not None:
        config, (run, _) = TrainConfig(**settings), find_checkpoint(resume)
        check_resumed(run, base, config, config.logdir if "logdir" in named else None)
        return Request(config, cluster, resume=resume)
    given: dict[str, Any] = {"env": base.env, "agent": base.agent}
    given |= {
        name: value
        for name, value in settings.items()
        if name in named or value != getattr(base, name)
    }
    return Request(make_config(**given), cluster, given)


def _named_options(arguments: list[str]) -> set[str]:
    """Names of the settings that the arguments give, maybe with their default value."""
    options = {argument.partition("=")[0] for argument in arguments}
    return {option.lstrip("-").replace("-", "_") for option in options}


def _print_beginning(config: TrainConfig, trainer: "Trainer") -> None:
    if name := native_equivalent(config.env):
        print_line(f"note: --env {name} is the same task, stepped natively and faster")
    if has_faster_backend(config.env, config.backend):
        print_line(
            "note: --backend spring is several times as fast as Brax's default, "
            "generalized; its physics are simpler, so returns differ"
        )
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

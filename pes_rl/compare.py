"""Compare agents over seeds: `python -m pes_rl.compare STUDY.toml`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from pes_rl.run_folder.provenance import (
    describe_maker,
    package_versions,
    version_and_commit,
)
from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.studies.report import versions_of, write_results
from pes_rl.studies.runner import run_study
from pes_rl.studies.study import (
    Study,
    make_study,
    read_study,
)
from pes_rl.studies.verify import STALE, describe, verify_study, write_report


@dataclass(frozen=True)
class CompareOptions:
    """Train agents on environments and seeds; write a table, CSVs and figures."""

    study: tyro.conf.Positional[str | None] = None
    """TOML file of the study: a title, settings of all runs, and a table [[arm]] with a
    name, an agent, seeds and settings for each arm; without one, use the options."""
    env: tuple[str, ...] = ("swimmer",)
    """Environments, without a study file."""
    agent: tuple[str, ...] = ("pes", "es", "truncated-es")
    """Agents, each with the environment's default settings, without a study file."""
    seed: tuple[int, ...] = (0, 1, 2)
    """Seeds, without a study file."""
    total_timesteps: int | None = None
    """Budget of every run in environment steps, without a study file."""
    vmap_seeds: bool = False
    """Train the seeds of an arm together, in one program, where the environment is
    written in JAX (jax:, brax:, ...), without a study file. For an accelerator
    and for small problems: the last bits of a run's numbers can differ from those of
    the same run alone."""
    logdir: str | None = None
    """Folder of the results; None takes the study file's, or runs/compare-ENV."""
    verify: bool = False
    """Train a part of each arm again and compare it with the results in the folder:
    same to the bit, within the interval, or stale (then the exit status is 1). The part
    is one seed of each arm, or what the study file says, such as verify = {seeds = 2,
    evaluations = 10}. Nothing is written."""
    report: bool = False
    """With --verify: write the verdicts to verified.json in the folder."""
    jobs: int = os.cpu_count() or 1
    """Processes that train at the same time, each on one thread. With --vmap-seeds the
    seeds are divided among them; on one accelerator use 1."""


_OLDER = {"--agents": "--agent", "--seeds": "--seed", "--out": "--logdir"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(CompareOptions, arguments, "compare", older=_OLDER)
    return run_command(
        lambda: _verify(options) if options.verify else _compare(options),
        lambda: (
            "stopped; nothing was written"
            if options.verify
            else "stopped; the same command continues with the runs that are missing"
        ),
    )


def _verify(options: CompareOptions) -> int:
    study, out = _read_options(options)
    maker = describe_maker([version_and_commit()], package_versions())
    verdicts = verify_study(study, out, options.jobs)
    print(describe(study, verdicts))
    if options.report:
        write_report(out / "verified.json", study, verdicts, maker)
    return int(any(one.verdict == STALE for one in verdicts))


def _compare(options: CompareOptions) -> None:
    if options.report:
        raise ValueError("--report is of --verify; add that, or drop --report")
    study, out = _read_options(options)
    out.mkdir(parents=True, exist_ok=True)
    runs = Path("runs") / "compare" / "-".join(out.absolute().parts[-2:])
    run_study(study, runs, options.jobs)
    write_results(study, runs, out)
    if len(makers := versions_of(study, runs)) > 1:
        print(f"warning: runs made by {' and by '.join(makers)}", file=sys.stderr)
    print((out / "table.md").read_text("utf-8"))
    print(f"results: {out}")


def _read_options(options: CompareOptions) -> tuple[Study, Path]:
    if options.jobs < 1:
        raise ValueError(f"jobs={options.jobs} must be at least 1")
    if options.study is not None:
        path = Path(options.study)
        return read_study(path), Path(options.logdir or path.parent)
    budget = options.total_timesteps
    study = make_study(
        options.env,
        options.agent,
        options.seed,
        {} if budget is None else {"total_timesteps": budget},
        options.vmap_seeds,
    )
    name = "-".join(options.env).replace(":", "-")
    return study, Path(options.logdir or f"runs/compare-{name}")


if __name__ == "__main__":
    finish(main())

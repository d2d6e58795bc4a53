"""Search for settings: `python -m pes_rl.sweep SPACE.toml`."""

import os
from dataclasses import dataclass
from pathlib import Path

import tyro

from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.studies.sweep_report import write_report
from pes_rl.studies.sweep_space import read_space
from pes_rl.studies.sweep_trials import open_study, run_trials


@dataclass(frozen=True)
class SweepOptions:
    """Search a space of settings with Optuna; a report says which settings matter."""

    space: tyro.conf.Positional[str]
    """TOML file of the space: env, agent, seeds, settings that are fixed, and a table
    [search] of those that are searched."""
    trials: int = 40
    """Settings to try in all; those of a continued sweep count too."""
    logdir: str | None = None
    """Folder of the sweep; None makes runs/sweep/NAME. An earlier sweep in it
    is continued."""
    jobs: int = os.cpu_count() or 1
    """Trials at the same time, each on one thread."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    older = {"--out": "--logdir"}
    options = read_options(SweepOptions, arguments, "sweep", older=older)
    return run_command(
        lambda: _sweep(options),
        lambda: "stopped; the same command continues with the trials that are missing",
    )


def _sweep(options: SweepOptions) -> None:
    for name in ("trials", "jobs"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)} must be at least 1")
    space = read_space(Path(options.space))
    out = Path(options.logdir or f"runs/sweep/{Path(options.space).stem}")
    study = open_study(space, out)
    run_trials(space, study, out, options.trials, options.jobs)
    write_report(space, study, out)
    print((out / "report.md").read_text("utf-8"))
    print(f"results: {out}")


if __name__ == "__main__":
    finish(main())

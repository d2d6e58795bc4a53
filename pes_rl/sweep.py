"""Search for settings: `python -m pes_rl.sweep SPACE.toml`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from pes_rl.runtime.command_line import read_options
from pes_rl.studies.sweep_report import write_report
from pes_rl.studies.sweep_space import read_space
from pes_rl.studies.sweep_trials import open_study, run_trials

_INSTALL = "a sweep needs Optuna; pip install 'pes-rl[sweep]'"


@dataclass(frozen=True)
class SweepOptions:
    """Search a space of settings with Optuna; a report says which of them mattered."""

    space: tyro.conf.Positional[str]
    """TOML file of the space: env, agent, seeds, settings that are fixed, and a table
    [search] of those that are searched."""
    trials: int = 40
    """Settings to try in all; of a sweep that goes on, the earlier count."""
    out: str | None = None
    """Folder of the sweep; None makes runs/sweep/NAME. An old one goes on."""
    jobs: int = os.cpu_count() or 1
    """Trials at the same time, each on one thread."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(SweepOptions, arguments, "sweep")
    try:
        for name in ("trials", "jobs"):
            if getattr(options, name) < 1:
                raise ValueError(f"{name}={getattr(options, name)} must be at least 1")
        space = read_space(Path(options.space))
        out = Path(options.out or f"runs/sweep/{Path(options.space).stem}")
        study = open_study(space, out)
        run_trials(space, study, out, options.trials, options.jobs)
        write_report(space, study, out)
    except ImportError:
        print(f"error: {_INSTALL}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the trials that are missing")
        return 130
    print((out / "report.md").read_text())
    print(f"results: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

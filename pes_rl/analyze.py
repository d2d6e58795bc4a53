"""Study estimators and problems: `python -m pes_rl.analyze variance --help`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from pes_rl.analysis.bias import Bias
from pes_rl.analysis.cost import Cost
from pes_rl.analysis.memory import Memory
from pes_rl.analysis.scaling import Scaling
from pes_rl.analysis.signal_to_noise import Signal
from pes_rl.analysis.surface import Surface
from pes_rl.analysis.variance import Variance
from pes_rl.run_folder.provenance import FILE, recording_maker
from pes_rl.runtime.command_line import finish, respell, run_command, wrap_help_texts

_STUDIES = {
    "surface": Surface,
    "bias": Bias,
    "variance": Variance,
    "cost": Cost,
    "memory": Memory,
    "scaling": Scaling,
    "signal": Signal,
}

_OLDER = {
    "--out": "--logdir",
    "--agents": "--agent",
    "--unroll": "--truncation-length",
    "--truncation-lengths": "--truncation-length",
    "--particles": "--num-particles",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    start = time.time()
    for kind in _STUDIES.values():
        wrap_help_texts(kind)
    study = tyro.extras.subcommand_cli_from_dict(
        _STUDIES,
        args=respell(sys.argv[1:] if arguments is None else arguments, _OLDER),
        prog="python -m pes_rl.analyze",
    )
    if isinstance(study, Signal):  # its `run` is the run that it measures
        body, folder = study.measure, study.folder
    else:
        body, folder = study.run, Path(study.logdir)
    return run_command(
        lambda: _run(body, folder),
        lambda: _files_since(start, folder),
        compilation_cache=False,
    )


def _run(body: Callable[[], Any], folder: Path) -> None:
    with recording_maker(folder):
        body()


def _files_since(start: float, folder: Path) -> str:
    """The line of an interrupted study: which files it has written."""
    files = sorted(path for path in folder.glob("*.*") if path.name != FILE)
    written = [str(path) for path in files if path.stat().st_mtime >= start]
    return f"stopped; written so far: {', '.join(written) or 'nothing'}"


if __name__ == "__main__":
    finish(main())

"""Study estimators and problems: `python -m pes_rl.analyze variance --help`."""

import sys
import time
from pathlib import Path
from typing import Any

import tyro

from pes_rl.analysis.bias import Bias
from pes_rl.analysis.cost import Cost
from pes_rl.analysis.memory import Memory
from pes_rl.analysis.scaling import Scaling
from pes_rl.analysis.surface import Surface
from pes_rl.analysis.variance import Variance
from pes_rl.run_folder.provenance import (
    describe_maker,
    package_versions,
    record_maker,
    version_and_commit,
)
from pes_rl.runtime.command_line import finish, respell, run_command, wrap_help_texts

_STUDIES = {
    "surface": Surface,
    "bias": Bias,
    "variance": Variance,
    "cost": Cost,
    "memory": Memory,
    "scaling": Scaling,
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
    return run_command(
        lambda: _run(study, start),
        lambda: _stopped(start, Path(study.logdir)),
        compilation_cache=False,
    )


def _run(study: Any, start: float) -> None:
    """Run the study and record what made its tables."""
    maker = describe_maker([version_and_commit()], package_versions())
    folder = Path(study.logdir)
    try:
        study.run()
    finally:
        tables = _files_since(start, folder, "*.csv")
        record_maker(folder, [path.name for path in tables], maker)


def _files_since(start: float, folder: Path, pattern: str = "*.*") -> list[Path]:
    files = sorted(folder.glob(pattern))
    return [path for path in files if path.stat().st_mtime >= start]


def _stopped(start: float, folder: Path) -> str:
    """The line of an interrupted study: which files it has written."""
    written = ", ".join(map(str, _files_since(start, folder)))
    return f"stopped; written so far: {written or 'nothing'}"


if __name__ == "__main__":
    finish(main())

"""Study estimators and problems: `python -m pes_rl.analyze variance --help`."""

import sys
import time
from pathlib import Path

import tyro

from pes_rl.analysis.bias import Bias
from pes_rl.analysis.cost import Cost
from pes_rl.analysis.memory import Memory
from pes_rl.analysis.scaling import Scaling
from pes_rl.analysis.surface import Surface
from pes_rl.analysis.variance import Variance
from pes_rl.runtime.command_line import finish, let_help_flow

_STUDIES = {
    "surface": Surface,
    "bias": Bias,
    "variance": Variance,
    "cost": Cost,
    "memory": Memory,
    "scaling": Scaling,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    begun = time.time()
    for kind in _STUDIES.values():
        let_help_flow(kind)
    study = tyro.extras.subcommand_cli_from_dict(
        _STUDIES, args=arguments, prog="python -m pes_rl.analyze"
    )
    try:
        study.run()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        written = [
            str(path)
            for path in sorted(Path(study.out).glob("*.*"))
            if path.stat().st_mtime >= begun
        ]
        print(f"stopped; written so far: {', '.join(written) or 'nothing'}")
        return 130
    return 0


if __name__ == "__main__":
    finish(main())

"""Export a trained policy: `python -m pes_rl.export RUN --format onnx`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from pes_rl._version import __version__
from pes_rl.agents.policy_names import is_own_network
from pes_rl.envs.names import is_unrolled
from pes_rl.exporting.layers import Layers, check_export, to_layers
from pes_rl.exporting.numpy_format import run_numpy, to_numpy
from pes_rl.exporting.onnx_format import run_onnx, to_onnx
from pes_rl.exporting.torchscript_format import run_torchscript, to_torchscript
from pes_rl.run_folder.policy_files import load_policy, read_environment
from pes_rl.run_folder.reader import find_run, read_config
from pes_rl.runtime.command_line import finish, read_options, run_command

Act = Callable[[np.ndarray], np.ndarray]

_SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "numpy": ".npz"}


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained policy for programs without pes_rl.

    The file has the observation normaliser and the clipping of actions in it: it takes
    observations [batch, O] as the environment gives them and returns actions [batch, A]
    in the environment's units, in float32. Before it is written, its actions are
    compared with the policy's.
    """

    run: tyro.conf.Positional[str]
    """Folder of the run, or a policy file (npz) of one."""
    format: Literal["onnx", "torchscript", "numpy"] = "onnx"
    """ONNX (pip install 'pes-rl[onnx]'), TorchScript (needs torch), or an npz file of
    plain matrices."""
    which: Literal["best", "last"] = "best"
    """The policy with the best evaluation of the run, or the last one; for a folder."""
    out: str | None = None
    """The file; None makes RUN/export/WHICH.onnx, .pt or .npz, and for a policy file
    that is in no run one in the folder export beside it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(ExportOptions, arguments, "export")
    return run_command(lambda: _export(options))


def _export(options: ExportOptions) -> None:
    path, difference = export(options)
    print(
        f"{path}: its actions differ from the policy's by {difference:.1e} at most, "
        "over 256 random observations"
    )


def export(options: ExportOptions) -> tuple[Path, float]:
    """Write the file.

    Returns:
        The file, and the largest difference of its actions from the policy's.

    Raises:
        ValueError: If the run has no policy, a package is missing, or the exported
            actions differ.
    """
    source = Path(options.run)
    run, is_file = find_run(source), source.suffix == ".npz"
    if run is None:
        made_by = {k: str(v) for k, v in read_environment(source).items()}
    else:
        made_by = _made_by(run, options.which)
    trained = load_policy(source, options.which)
    layers = to_layers(trained)
    content, act = _convert(options.format, layers, made_by)
    difference = check_export(trained, layers, act)
    name = source.stem if is_file else options.which
    folder = source.parent if run is None else run
    default = folder / "export" / f"{name}{_SUFFIXES[options.format]}"
    path = default if options.out is None else Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path, difference


def _made_by(run: Path, which: str) -> dict[str, str]:
    """The run's environment and agent, if its policy can be exported."""
    config = read_config(run)
    if is_unrolled(config.env):
        raise ValueError(
            f"{run} was trained on {config.env}, which has parameters and no policy; "
            f"read them by numpy.load('{run}/policy/{which}.npz')['theta']"
        )
    if is_own_network(config.policy):
        raise ValueError(
            f"{run} has the policy {config.policy}, a network of your own; only linear "
            "and mlp policies can be exported. pes_rl.load_policy(RUN, policy=...) "
            "gives its parameters, theta"
        )
    return {"env": config.env, "agent": config.agent}


def _convert(
    kind: str, layers: Layers, made_by: Mapping[str, str]
) -> tuple[bytes, Act]:
    """The content of the file, and a function that computes actions from it."""
    if kind == "onnx":
        content = to_onnx(layers, {**made_by, "pes_rl": __version__})
        return content, run_onnx(content)
    if kind == "torchscript":
        content = to_torchscript(layers)
        return content, run_torchscript(content)
    content = to_numpy(layers)
    return content, run_numpy(content)


if __name__ == "__main__":
    finish(main())

"""Export a trained policy: `python -m pes_rl.export RUN --format onnx`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from pes_rl._version import __version__
from pes_rl.agents.policy_names import is_own_network
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs.names import is_unrolled
from pes_rl.exporting.layers import Layers, check_export, to_layers
from pes_rl.exporting.numpy_format import run_numpy, to_numpy
from pes_rl.exporting.onnx_format import run_onnx, to_onnx
from pes_rl.exporting.torchscript_format import run_torchscript, to_torchscript
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.run_folder.reader import read_config
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
    """Folder of the run."""
    format: Literal["onnx", "torchscript", "numpy"] = "onnx"
    """ONNX (pip install 'pes-rl[onnx]'), TorchScript (needs torch), or an npz file of
    plain matrices."""
    which: Literal["best", "last"] = "best"
    """The policy with the best evaluation of the run, or the last one."""
    out: str | None = None
    """The file; None makes RUN/export/WHICH.onnx, .pt or .npz."""


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
    run = Path(options.run)
    config = read_config(run)
    if is_unrolled(config.env):
        raise ValueError(
            f"{run} was trained on {config.env}, which has parameters and no policy; "
            f"read them by numpy.load('{run}/policy/{options.which}.npz')['theta']"
        )
    if is_own_network(config.policy):
        raise ValueError(
            f"{run} has the policy {config.policy}, a network of your own; only linear "
            "and mlp policies can be exported. pes_rl.load_policy(RUN, policy=...) "
            "gives its parameters, theta"
        )
    trained = load_policy(run, options.which)
    layers = to_layers(trained)
    content, act = _convert(options.format, layers, config)
    difference = check_export(trained, layers, act)
    default = run / "export" / f"{options.which}{_SUFFIXES[options.format]}"
    path = default if options.out is None else Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path, difference


def _convert(kind: str, layers: Layers, config: TrainConfig) -> tuple[bytes, Act]:
    """The content of the file, and a function that computes actions from it."""
    if kind == "onnx":
        made_by = {"env": config.env, "agent": config.agent, "pes_rl": __version__}
        content = to_onnx(layers, made_by)
        return content, run_onnx(content)
    if kind == "torchscript":
        content = to_torchscript(layers)
        return content, run_torchscript(content)
    content = to_numpy(layers)
    return content, run_numpy(content)


if __name__ == "__main__":
    finish(main())

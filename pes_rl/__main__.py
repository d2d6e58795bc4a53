"""All commands under one name: `pes-rl COMMAND`, or `python -m pes_rl COMMAND`."""

import os
import sys
from importlib import import_module

from pes_rl.envs.names import unknown_name
from pes_rl.runtime.command_line import finish, run_command

COMMANDS = {
    "train": ("pes_rl.training.command", "train a policy"),
    "evaluate": ("pes_rl.evaluate", "play episodes with a trained policy"),
    "video": ("pes_rl.video", "film a trained policy: MP4 or GIF"),
    "export": ("pes_rl.export", "write a trained policy as ONNX, TorchScript, NumPy"),
    "hub": ("pes_rl.hub", "share a trained policy on the Hugging Face hub"),
    "plot": ("pes_rl.plot", "draw learning curves of runs, figures of studies"),
    "compare": ("pes_rl.compare", "train agents on several seeds: table and figures"),
    "sweep": ("pes_rl.sweep", "search settings with Optuna"),
    "check": ("pes_rl.check", "check an environment for use in training"),
    "bench": ("pes_rl.bench", "measure steps a second beside other engines"),
    "analyze": ("pes_rl.analyze", "study estimators: bias, variance, cost, scaling"),
}
"""Module and short description of each command."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command by its name; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name, *rest = given
    if name not in COMMANDS:
        return run_command(lambda: _refuse(name))
    # Imported only when it is run: each command needs seconds of imports of its own.
    return import_module(COMMANDS[name][0]).main(rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    usage = "usage: pes-rl COMMAND [options], or python -m pes_rl.COMMAND [options]"
    more = "pes-rl COMMAND --help lists a command's options."
    return "\n".join([usage, "", *lines, "", more])


def _refuse(name: str) -> None:
    raise ValueError(unknown_name("command", name, list(COMMANDS)))


def run() -> None:
    """The console script `pes-rl`; as with `python -m`, it imports from this folder."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    finish(main())


if __name__ == "__main__":
    run()

"""Ctrl-C while a command imports its modules: one line and status 130."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pes_rl.runtime import early_interrupt
from pes_rl.runtime.command_line import run_command

ROOT = Path(__file__).parents[3]
MODULE = [sys.executable, "-m"]
WAYS = {
    "train": [*MODULE, "pes_rl.train", "--env", "jax:swimmer", "--logdir", "run"],
    "evaluate": [*MODULE, "pes_rl.evaluate", "run"],
    "video": [*MODULE, "pes_rl.video", "run"],
    "plot": [*MODULE, "pes_rl.plot", "run"],
    "compare": [*MODULE, "pes_rl.compare", "study.toml"],
    "sweep": [*MODULE, "pes_rl.sweep", "space.toml"],
    "check": [*MODULE, "pes_rl.check", "jax:swimmer"],
    "bench": [*MODULE, "pes_rl.bench", "--env", "jax:swimmer"],
    "analyze": [*MODULE, "pes_rl.analyze", "bias"],
    "python -m pes_rl": [*MODULE, "pes_rl", "train", "--env", "jax:swimmer"],
    "pes-rl": [sys.executable, "shim/pes-rl", "check", "jax:swimmer"],
}

# The first import of the package's own code: it says that Python has started.
SHIM = """
import importlib, os, sys
open(os.environ["BEGUN"], "w").close()
sys.path.remove(os.path.dirname(__file__))
del sys.modules["lazy_loader"]
sys.modules["lazy_loader"] = importlib.import_module("lazy_loader")
"""

# As pip writes it.
SCRIPT = "import sys\nfrom pes_rl.__main__ import run\nsys.exit(run())\n"


@pytest.fixture(autouse=True)
def default_sigint():
    """A job in the background ignores SIGINT, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_after(seconds: float, way: str, folder: Path) -> tuple[int, str, str]:
    """Status, standard output and error of a command that gets SIGINT."""
    (folder / "shim").mkdir(exist_ok=True)
    (folder / "shim" / "lazy_loader.py").write_text(SHIM)
    (folder / "shim" / "pes-rl").write_text(SCRIPT)
    begun = folder / "begun"
    begun.unlink(missing_ok=True)
    path = os.pathsep.join([str(folder / "shim"), str(ROOT)])
    with subprocess.Popen(
        WAYS[way],
        env={**os.environ, "PYTHONPATH": path, "BEGUN": str(begun)},
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not begun.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    return process.returncode, out, error


@pytest.mark.parametrize(
    ("way", "seconds"), [("train", 0.05), ("train", 0.3), ("python -m pes_rl", 0.1)]
)
def test_ctrl_c_while_importing_is_a_line(way, seconds, tmp_path):
    assert interrupted_after(seconds, way, tmp_path) == (
        130,
        "stopped before anything began\n",
        "",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["begun", "shim"]


@pytest.mark.slow  # starts a hundred processes
@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_at_any_moment_is_no_traceback(way, tmp_path):
    for seconds in (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5):
        status, out, error = interrupted_after(seconds, way, tmp_path)
        assert "Traceback" not in out + error, seconds
        # A command without its file ends by itself, and Python, at its very end, by
        # the signal.
        if error.startswith("error:"):
            assert status in (2, -signal.SIGINT), seconds
        else:
            # Before it stands what the command was waiting for, if it had said that.
            last = out.splitlines()[-1][:7]
            rest = [line for line in error.splitlines() if not line.endswith(" ...")]
            assert (status, last, rest) == (130, "stopped", []), seconds


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["-m"], ["python", "-m", "pes_rl.train"], True),
        (["-m", "a", "b"], ["python", "-u", "-m", "pes_rl", "a", "b"], True),
        (["-m", "a"], ["python", "-mpes_rl.check", "a"], True),
        (["/usr/bin/pes-rl", "train"], ["python", "/usr/bin/pes-rl", "train"], True),
        (["-m", "pes_rl.train"], ["python", "-m", "tool", "pes_rl.train"], False),
        (["-m"], ["python", "-m", "pes_rl_more"], False),
        (["script.py"], ["python", "script.py"], False),
        (["-c"], ["python", "-c", "import pes_rl"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_commands_of_the_package_end_at_once(
    argv, orig_argv, expected, monkeypatch
):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    early_interrupt.handle_early_interrupts()
    handled = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert handled == expected
    early_interrupt.allow_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_at_work_is_interrupted_as_usual():
    with early_interrupt.ending_at_once():
        assert signal.getsignal(signal.SIGINT) is early_interrupt._end
        seen = []
        run_command(lambda: seen.append(signal.getsignal(signal.SIGINT)))
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_a_handler_of_the_caller_stays(handler):
    signal.signal(signal.SIGINT, handler)
    with early_interrupt.ending_at_once():
        assert signal.getsignal(signal.SIGINT) is handler
    assert signal.getsignal(signal.SIGINT) is handler

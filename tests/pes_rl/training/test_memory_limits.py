"""A limit on memory (`ulimit -v`): a run without checkpoints, or a line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from pes_rl.runtime.command_line import run_command
from pes_rl.training import checkpoints
from pes_rl.training.checkpoints import Checkpoints
from pes_rl.training.counters import Counters

pytest.importorskip("resource")  # Windows has none.

ROOT = Path(__file__).parents[3]

# The limit comes when all programs are compiled: XLA ends a process that lacks memory.
PROGRAM = """
import re, resource, sys
from pathlib import Path
import pes_rl


class Limit(pes_rl.Callback):
    limited = False

    def on_log(self, run, row):
        if run.timesteps >= 1500 and not self.limited:
            self.limited = True
            status = Path("/proc/self/status").read_text()
            size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", status)[1])
            limits = (size + 100 * 2**20, resource.RLIM_INFINITY)
            resource.setrlimit(resource.RLIMIT_AS, limits)


pes_rl.train(
    "inverted_pendulum", logdir="run", callbacks=[Limit()], num_threads=1, num_pairs=2,
    truncation_length=50, log_interval=1, total_timesteps=3000, eval_interval=500,
    eval_episodes=1, final_eval_episodes=1, checkpoint_interval=1000,
)
"""


@pytest.mark.slow  # starts a process
def test_a_run_under_a_limit_goes_on_without_checkpoints(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
    )
    output = process.stdout + process.stderr
    assert process.returncode == 0, output
    assert "Traceback" not in output
    not_saved = [line for line in output.splitlines() if "not saved" in line]
    assert len(not_saved) == 3, output  # After 2,000 and 3,000 steps, and at the end.
    for line in not_saved:
        assert line.startswith("checkpoint not saved, training continues: it needs 200")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["total_timesteps"] >= 3000
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert 1000 <= int(saved.name) < 1500


def test_a_save_that_lacks_memory_touches_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    made = Checkpoints(tmp_path / "checkpoints")
    monkeypatch.setattr(checkpoints.mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match=r"200 MiB .* \(Cannot allocate memory; ul"):
        made.save({}, Counters())  # type: ignore[arg-type]
    made.close()
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB"),
        ImportError("libarm.so: failed to map segment from shared object"),
    ],
)
def test_a_lack_of_memory_is_a_line(error, capsys):
    def body() -> None:
        raise error

    assert run_command(body) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: there is not enough memory ({error})"


def test_arrays_that_no_device_can_hold_are_a_line(capsys):
    """Such as those of too many pairs; in training it is the cause of an error."""

    def allocate() -> None:
        jnp.zeros(10**13)

    def train() -> None:
        try:
            allocate()
        except Exception as error:
            raise RuntimeError("training ended") from error

    for body, begin in ((allocate, ""), (train, "training ended: ")):
        assert run_command(body, compilation_cache=False) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {begin}there is not enough memory (RESOURCE_E")

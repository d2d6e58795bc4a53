"""What a run or a study has started ends with it, whichever way it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gymnasium_counting import GymnasiumCounting
from quick_run import QUICK

import pes_rl
from pes_rl.training.callbacks import Callback

OPTIONS = {**QUICK, "vectorization": "async", "num_threads": 2}


def children():
    """Process ids of this process's children."""
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("no /proc here")
    return set(path.read_text().split())


def test_the_workers_of_a_run_end_with_it(tmp_path):
    before = children()
    seen = []

    class Look(Callback):
        def on_log(self, run, row):
            seen.append(children() - before)

    look = [Look()]
    for k in range(2):
        folder = tmp_path / str(k)
        pes_rl.train(GymnasiumCounting, logdir=folder, callbacks=look, **OPTIONS)
        assert children() == before
    assert all(len(started) >= 2 for started in seen)


def test_the_workers_of_a_run_that_fails_end_with_it(tmp_path):
    class Fail(Callback):
        def on_log(self, run, row):
            raise RuntimeError("in a callback")

    before = children()
    with pytest.raises(RuntimeError, match="in a callback"):
        pes_rl.train(
            GymnasiumCounting, logdir=tmp_path / "a", callbacks=[Fail()], **OPTIONS
        )
    assert children() == before


def descendants(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    own = path.read_text().split() if path.exists() else []
    return [int(child) for child in own] + [d for c in own for d in descendants(c)]


def is_running(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_of_a_study_end_with_it(tmp_path, number):
    if not Path("/proc").exists():
        pytest.skip("no /proc here")
    command = [sys.executable, "-m", "pes_rl.compare", "--env", "swimmer"]
    command += ["--agent", "pes", "--total-timesteps", "100000000", "--jobs", "2"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **streams) as process:
        while len(list(tmp_path.rglob("progress.csv"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        started = descendants(process.pid)
        assert len(started) >= 2
        process.send_signal(number)
        assert process.stdout is not None
        shown = process.stdout.read()
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert "the same command continues with the runs" in shown.splitlines()[-1]
    deadline = time.monotonic() + 20
    while any(map(is_running, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, started))

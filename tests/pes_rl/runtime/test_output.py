"""Output that fails ends no run, and hang-ups end it as SIGTERM does."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from quick_run import QUICK

from pes_rl.runtime.output import TolerantOutput, print_line

TRAIN = [sys.executable, "-m", "pes_rl.train", "--env", "swimmer"]
TRAIN += [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]


def train(folder, *options, **streams: Any) -> Any:
    return subprocess.Popen([*TRAIN, "--logdir", str(folder), *options], **streams)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_the_output_of_a_job(tmp_path):
    with open("/dev/full", "w") as full:
        assert train(tmp_path / "run", stdout=full, stderr=full).wait() == 0
    assert summary(tmp_path / "run")["total_timesteps"] == 240
    assert not summary(tmp_path / "run")["interrupted"]


def test_a_reader_that_goes_away(tmp_path):
    """As with `| head -1`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with train(tmp_path / "run", **streams) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert summary(tmp_path / "run")["total_timesteps"] == 240


class SignalsWhileItWrites(io.RawIOBase):
    """A pipe whose reader waits, and a signal that comes while the writer does."""

    def writable(self):
        return True

    def write(self, data):
        signal.raise_signal(signal.SIGTERM)
        return len(data)


def test_a_signal_handler_may_print_while_a_write_waits(monkeypatch):
    handled = []

    def handle(number, frame):
        print_line("the run stops and is saved")
        handled.append(number)

    stream = io.TextIOWrapper(io.BufferedWriter(SignalsWhileItWrites()))
    monkeypatch.setattr(sys, "stdout", stream)
    before = signal.signal(signal.SIGTERM, handle)
    try:
        print_line("a row of the log")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == [signal.SIGTERM]


def test_a_lost_terminal_saves_the_run(tmp_path):
    # Tests that run under nohup ignore SIGHUP, and their children would too.
    reset = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    reset += "os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", reset, *TRAIN, "--logdir", str(tmp_path / "run")]
    command.append("--total-timesteps=10000000")
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **streams) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "  480/" in line:
                break
        process.send_signal(signal.SIGHUP)
        assert "SIGHUP: the run stops and is saved" in process.stdout.read()
    assert process.returncode == 128 + signal.SIGHUP
    assert summary(tmp_path / "run")["ended_by"] == "SIGHUP"
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_ctrl_c_stops_a_long_evaluation_between_two_steps(tmp_path):
    """100,000 episodes on the host would take minutes."""
    options = ["--eval-episodes=100000", "--horizon=1000"]
    streams = {"stdout": subprocess.PIPE, "text": True}
    with train(tmp_path / "run", *options, **streams) as process:
        while not (tmp_path / "run" / "progress.csv").exists():
            time.sleep(0.1)
        time.sleep(3.0)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        heard = "SIGINT: the run stops and is saved"
        assert any(line.startswith(heard) for line in process.stdout)
        process.stdout.read()
    assert process.returncode == 130
    assert time.monotonic() - start < 30
    assert summary(tmp_path / "run")["final_return"] is None


def test_a_closed_stream_takes_nothing():
    with open(os.devnull, "w") as stream:
        output = TolerantOutput(stream)
    assert output.write("text") == 4
    output.flush()


def test_a_line_goes_to_the_stream_that_is_there(capsys):
    print_line("one")
    print_line("two", error=True)
    assert capsys.readouterr() == ("one\n", "two\n")

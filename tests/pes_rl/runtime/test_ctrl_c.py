"""Ctrl-C in a command that is not `train` at work: a line and status 130."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pes_rl import analyze, bench, check, evaluate, video
from pes_rl.training import command as train_command

BENCH = [*("--env", "swimmer", "--no-peers", "--num-threads", "1", "--rounds", "1")]
BENCH += [*("--seconds", "0.001", "--num-particles", "2", "4")]


def interrupt(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("main", "place", "arguments", "message"),
    [
        (
            analyze.main,
            (analyze.Bias, "run"),
            ["bias", "--logdir", "nowhere"],
            "written so far: nothing",
        ),
        (check.main, (check, "check"), ["swimmer"], "stopped"),
        (evaluate.main, (evaluate, "evaluate"), ["RUN"], "stopped"),
        (video.main, (video, "film_run"), ["RUN"], "stopped"),
        (train_command.main, (train_command, "_train_as"), [], "before training began"),
    ],
)
def test_ctrl_c_is_a_line(
    main: Callable[[list[str]], int],
    place: tuple[Any, str],
    arguments: list[str],
    message: str,
    monkeypatch,
    capsys,
) -> None:
    monkeypatch.setattr(*place, interrupt)
    assert main(arguments) == 130
    (line,) = capsys.readouterr().out.splitlines()
    assert message in line


def test_a_bench_says_what_it_has_written(tmp_path, monkeypatch, capsys) -> None:
    path, whole = tmp_path / "rows.json", bench._bench

    def measure(config: Any, env: str, particles: int) -> Any:
        return whole(config, env, particles) if particles == 2 else interrupt()

    monkeypatch.setattr(bench, "_bench", measure)
    assert bench.main([*BENCH, "--json", str(path)]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"stopped; whole tables measured: 1, written to {path}"
    assert '"particles": 2' in path.read_text()
    monkeypatch.setattr(bench, "_bench", interrupt)
    assert bench.main(BENCH) == 130
    assert capsys.readouterr().out == "stopped; whole tables measured: 0\n"


def in_the_foreground(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """A command as a terminal starts it, in a process group of its own."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
    )


@pytest.mark.slow  # starts the processes of Gymnasium's peers
def test_ctrl_c_at_a_terminal_reaches_the_processes_of_a_bench_too(tmp_path) -> None:
    command = [sys.executable, "-m", "pes_rl.bench", *BENCH[:2], "--num-threads", "2"]
    command += ["--num-particles", "2", "--rounds", "100000", "--seconds", "0.01"]
    with in_the_foreground(command, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "gymnasium async" in line:
                break
        # As a terminal does: to every process in the foreground.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "stopped; whole tables measured: 0"


def test_ctrl_c_ends_a_process_that_xla_is_at_work_in() -> None:
    """Where Python's end would crash under XLA's threads; what has to end, ends."""
    program = """
import atexit, os, signal, threading
import jax
from jax import lax
from pes_rl.runtime.command_line import finish

atexit.register(print, "let go")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
interrupt = os.getpid(), signal.SIGINT
work = jax.jit(lambda x: lax.fori_loop(0, 2 * 10**9, lambda i, x: x + 1e-9 * i, x))
threading.Timer(1, os.kill, interrupt).start()
try:
    work(0.5).block_until_ready()
except KeyboardInterrupt:
    print("stopped")
    finish(130)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], text=True, capture_output=True, timeout=120
    )
    assert (process.returncode, process.stdout) == (130, "stopped\nlet go\n")


@pytest.mark.slow  # starts two processes
@pytest.mark.parametrize("at_work", [False, True])
def test_ctrl_c_ends_the_processes_of_a_comparison(tmp_path, at_work) -> None:
    """While they start, or at work."""
    command = [sys.executable, "-m", "pes_rl.compare", "--env", "jax:swimmer"]
    command += [*("--agent", "es", "--seed", "0", "1", "2", "--jobs", "1")]
    command += ["--total-timesteps", str(10**11), "--logdir", "out"]
    with in_the_foreground(command, tmp_path) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # that no run is done yet
            time.sleep(1.0)
            while at_work and not list(tmp_path.rglob("config.json")):
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, output
    assert "continues with the runs that are missing" in output.splitlines()[-1]
    assert "Traceback" not in output

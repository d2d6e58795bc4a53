"""A run in two processes, which meet on the loopback interface."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pes_rl.run_folder.policy_files import (
    load_parameters,
)
from pes_rl.run_folder.reader import read_curve
from pes_rl.runtime.multihost import Cluster
from pes_rl.training import command as train

ROOT = Path(__file__).parents[3]
COMMON = (
    "--env unrolled:toy-regression --num-pairs 8 --truncation-length 10 "
    "--eval-episodes 2 --final-eval-episodes 2 --log-interval 4 "
    "--eval-interval 1280 --checkpoint-interval 640"
)
WHOLE = f"{COMMON} --total-timesteps 25600"
UNTIMED = ("time/total_timesteps", "rollout/ep_rew_mean", "pes/gradient_norm")
DEADLINE = 120  # seconds, after which a process counts as hanging
RUN_ALL = (
    "import shlex, sys; from pes_rl.training.command import main; "
    "print([main(shlex.split(line)) for line in sys.argv[1:]])"
)


@pytest.fixture
def start():
    """Starts processes of runs, and leaves none behind."""
    started = []

    def begin(arguments: str, *, other: str | None = None, slurm: Path | None = None):
        """Two processes.

        Args:
            arguments: Of both.
            other: Of the second one, if not those.
            slurm: Let JAX find all that Slurm tells it, and run in this folder.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for number, own in enumerate((arguments, other or arguments)):
            where = f"127.0.0.1:{port} --num-processes 2 --process-id {number}"
            told = {}
            if slurm is not None:
                where = "auto"
                told = {
                    "SLURM_JOB_ID": str(port),
                    "SLURM_STEP_NODELIST": "localhost",
                    "SLURM_NTASKS": "2",
                    "SLURM_PROCID": str(number),
                    "SLURM_LOCALID": str(number),
                }
            command = [*own.split(), "--coordinator-address", *where.split()]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "pes_rl.train", *command],
                    env={**os.environ, "PYTHONPATH": str(ROOT), **told},
                    cwd=slurm,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started[-2:]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def finish(pair):
    """Exit status, output and errors of both; fails if one hangs."""
    told = [process.communicate(timeout=DEADLINE) for process in pair]
    return [(one.returncode, *own) for one, own in zip(pair, told, strict=True)]


def wait_for_steps(process, steps):
    for line in process.stdout:
        # Other programs write lines too; JAX 0.10.0's collectives an empty one.
        shown = re.search(r"([\d,]+)/[\d,]+ steps", line)
        if shown and int(shown[1].replace(",", "")) >= steps:
            return


def run_on_two_devices(*commands):
    """One process with two simulated devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == str([0] * len(commands)), done.stderr


def check_same(folder, expected):
    """The same parameters and log, to the bit."""
    for which in ("best", "last"):
        np.testing.assert_array_equal(
            load_parameters(folder, which).theta, load_parameters(expected, which).theta
        )
    log, same = (read_curve(each, UNTIMED) for each in (folder, expected))
    for column in UNTIMED:
        np.testing.assert_array_equal(log[column], same[column])


def test_two_processes_are_two_devices_and_one_signal_ends_both(tmp_path, start):
    """Interrupted, and gone on with by one process: the run that nothing happened to.

    The signal comes to the process that writes nothing.
    """
    folder, whole = tmp_path / "run", tmp_path / "whole"
    pair = start(f"{WHOLE} --logdir {folder}")
    wait_for_steps(pair[0], 2560)
    pair[1].send_signal(signal.SIGTERM)
    (status, output, errors), (other_status, other_output, _) = finish(pair)
    assert status == other_status == 128 + signal.SIGTERM, errors
    assert f"continue with --resume {folder}" in output
    said = [line for line in other_output.splitlines() if "[Gloo]" not in line]
    assert said == []
    assert json.loads((folder / "summary.json").read_text())["ended_by"] == "SIGTERM"
    assert len(list(folder.glob("events.*"))) == 1
    assert (folder / "progress.csv").read_text().count("time/total_timesteps") == 1
    run_on_two_devices(
        f"{WHOLE} --devices 2 --logdir {whole}", f"--resume {folder} --devices 2"
    )
    check_same(folder, whole)


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_began(tmp_path, start):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    run_on_two_devices(
        f"{WHOLE} --devices 2 --logdir {whole}",
        f"{COMMON} --total-timesteps 6400 --devices 2 --logdir {folder}",
    )
    pair = start(f"--resume {folder} --devices 1 --total-timesteps 25600")
    assert [status for status, *_ in finish(pair)] == [0, 0]
    check_same(folder, whole)


@pytest.mark.slow
def test_slurm_tells_jax_the_rest_and_process_0_names_the_folder(tmp_path, start):
    pair = start(f"{COMMON} --total-timesteps 640", slurm=tmp_path)
    for status, _, errors in finish(pair):
        assert status == 0, errors
    (folder,) = tmp_path.glob("runs/*/*")
    assert json.loads((folder / "summary.json").read_text())["total_timesteps"] == 640


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path, start, victim):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    pair = start(f"{WHOLE} --logdir {folder}")
    wait_for_steps(pair[0], 2560)
    pair[victim].kill()
    outcomes = finish(pair)
    status, _, errors = outcomes[1 - victim]
    assert status not in (0, 2)
    assert not (folder / "summary.json").exists()
    if victim == 1:  # Else JAX itself may end the process, with a trace of its own.
        assert status == 1
        assert errors.startswith("error: process 0, or one it needs, failed: ")
        assert len(errors.splitlines()) == 1
    run_on_two_devices(
        f"{WHOLE} --devices 2 --logdir {whole}", f"--resume {folder} --devices 2"
    )
    check_same(folder, whole)


@pytest.mark.slow
def test_a_full_disk_ends_both_and_the_run_goes_on(tmp_path, start):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=6m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("no file system can be mounted here")
    try:
        folder, ballast = disk / "run", disk / "ballast"
        pair = start(f"{WHOLE} --logdir {folder}")
        wait_for_steps(pair[0], 2560)
        with contextlib.suppress(OSError):
            ballast.write_bytes(b"0" * 10_000_000)
        (status, _, errors), (other_status, *_) = finish(pair)
        assert status == 1
        assert other_status != 0
        assert "error: process 0, or one it needs, failed" in errors
        assert "Traceback" not in errors
        ballast.unlink()
        run_on_two_devices(f"--resume {folder} --devices 2")
    finally:
        os.system(f"umount -l {disk}")


@pytest.mark.slow
def test_what_one_process_cannot_begin_none_begins(tmp_path, start):
    """The folder is taken, which process 0 alone sees; the settings differ."""
    taken = tmp_path / "taken"
    assert train.main(f"{COMMON} --total-timesteps 640 --logdir {taken}".split()) == 0
    pair = start(f"{WHOLE} --logdir {taken}")
    for status, _, errors in finish(pair):
        assert status == 2
        assert "already holds a run" in errors
        assert "Traceback" not in errors
    new = f"--logdir {tmp_path / 'new'}"
    for other in (f"{WHOLE} --sigma 0.2 {new}", WHOLE):
        for status, _, errors in finish(start(f"{WHOLE} {new}", other=other)):
            assert status == 2
            assert "process 1 has other settings than process 0" in errors


@pytest.mark.slow
def test_where_one_process_finds_no_checkpoint_none_goes_on(tmp_path, start):
    """Folders that are not one: the other's has lost its checkpoints, or the newest."""
    folder, other = tmp_path / "run", tmp_path / "other"
    run_on_two_devices(f"{COMMON} --total-timesteps 1280 --devices 2 --logdir {folder}")
    shutil.copytree(folder, other)
    shutil.rmtree(other / "checkpoints" / "1280")
    more = "--devices 1 --total-timesteps 2560"
    for resumed, message in (
        (("run", "other"), "process 1 has other checkpoints than process 0"),
        (("run/checkpoints/1280", "other/checkpoints/1280"), "no checkpoint 1280, onl"),
    ):
        own, others = (f"--resume {tmp_path / name} {more}" for name in resumed)
        for status, _, errors in finish(start(own, other=others)):
            assert status == 2
            assert message in errors
            assert "Traceback" not in errors
    shutil.rmtree(other / "checkpoints")
    pair = start(f"--resume {folder} {more}", other=f"--resume {other} {more}")
    for status, _, errors in finish(pair):
        assert status == 2
        assert "are gone, so it cannot be resumed" in errors


@pytest.mark.slow
def test_host_environments_are_not_for_several_processes(tmp_path, start):
    pair = start(f"--env swimmer --logdir {tmp_path / 'run'}")
    for status, _, errors in finish(pair):
        assert status == 2
        assert "2 processes are for environments written in JAX" in errors
        assert "workers (Ray)" in errors


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Cluster(None, 2, 0), "num_processes=2 has no meaning without coordinator"),
        (Cluster(None, None, 1), "process_id=1 has no meaning without coordinator"),
        (Cluster("10.0.0.1", 2, 0), "must be HOST:PORT"),
        (Cluster("auto"), "no cluster to join: .*num_processes and process_id"),
    ],
)
def test_what_is_missing_to_meet_is_said(cluster, message):
    with pytest.raises(ValueError, match=message):
        cluster.join()


def test_a_run_on_its_own_joins_nothing():
    Cluster().join()

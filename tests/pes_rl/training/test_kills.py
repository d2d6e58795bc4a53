"""Runs killed at random moments and resumed end as if nothing had happened, to the bit.

A run is a process of its own; the moment at which it is killed is a share of its budget
and a delay after the line that shows it, both drawn from a stated seed. The delay is
longer than a row of the log takes, so that kills hit updates, evaluations and saves.
"""

import gc
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_outcome import outcome

from pes_rl.training import command as train

ROOT = Path(__file__).parents[3]
COMMON = (
    "--eval-episodes 2 --final-eval-episodes 20 --log-interval 1 "
    "--eval-interval 200 --checkpoint-interval 160"
)
RUNS = {
    "native pes": "--env swimmer --num-pairs 2 --truncation-length 10 --horizon 45 "
    "--total-timesteps 1600 --normalize-observations",
    "native gpes": "--env swimmer --agent gpes --num-pairs 2 --truncation-length 10 "
    "--noise-period 20 --horizon 45 --total-timesteps 1600",
    "device nres": "--env jax:swimmer --agent nres --num-pairs 2 "
    "--truncation-length 10 --horizon 45 --total-timesteps 1600",
    "uoro": "--env unrolled:influence-balancing --agent uoro --num-particles 4 "
    "--truncation-length 5 --total-timesteps 1600",
    "unrolled pes": "--env unrolled:toy-regression --num-pairs 2 "
    "--truncation-length 10 --total-timesteps 1600",
}
# Where Ray is installed: its workers go with the driver, and come again with it.
if importlib.util.find_spec("ray") is not None:
    RUNS["native pes on two workers"] = f"{RUNS['native pes']} --workers 2"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folders of runs that nothing happens to, by name."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / "run"
            arguments = f"{RUNS[name]} {COMMON} --logdir {made[name]}"
            assert train.main(arguments.split()) == 0
        return made[name]

    return make


def kill(name, number, share, delay, folder):
    """Run in a process of its own until `share` of the budget and `delay` seconds.

    Returns:
        Whether it was killed before it came to its end.
    """
    command = [sys.executable, "-m", "pes_rl.train", *RUNS[name].split()]
    process = subprocess.Popen(
        [*command, *COMMON.split(), "--logdir", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            steps = line.split("/")[0].split()[-1].replace(",", "")
            if steps.isdecimal() and int(steps) >= share * 1600:
                break
        time.sleep(delay)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    # The signal may also come between a run's end and its process's.
    if process.returncode in (0, -number) and has_ended(folder):
        return False
    assert "Traceback" not in errors
    if number == signal.SIGKILL:
        assert process.returncode == -number, errors
        assert not (folder / "summary.json").exists()
    else:
        assert process.returncode == 128 + number, errors
        assert f"--resume {folder}" in output
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["interrupted"]
        assert summary["ended_by"] == signal.Signals(number).name
    return True


def has_ended(folder):
    """Whether the run in the folder came to its end by itself."""
    summary = folder / "summary.json"
    return summary.exists() and not json.loads(summary.read_text())["interrupted"]


def check(name, folder, uninterrupted):
    assert train.main(["--resume", str(folder)]) == 0
    log, summary, arrays = outcome(folder)
    whole_log, whole_summary, whole_arrays = outcome(uninterrupted(name))
    assert log == whole_log
    assert summary == whole_summary
    assert arrays == whole_arrays


@pytest.mark.parametrize("name", ["native pes", "device nres"])
def test_the_same_seed_in_another_process_is_the_same_run(
    tmp_path, uninterrupted, name
):
    arguments = f"{RUNS[name]} {COMMON} --logdir {tmp_path / 'again'}"
    command = [sys.executable, "-m", "pes_rl.train", *arguments.split()]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert outcome(tmp_path / "again") == outcome(uninterrupted(name))


@pytest.mark.parametrize(
    ("name", "number", "share"),
    [
        ("native pes", signal.SIGKILL, 0.4),
        ("uoro", signal.SIGINT, 0.7),
    ],
    ids=str,
)
def test_a_killed_run_goes_on_to_the_bit(tmp_path, uninterrupted, name, number, share):
    assert kill(name, number, share, 0.1, tmp_path / "run")
    check(name, tmp_path / "run", uninterrupted)


@pytest.mark.slow
# Ray's own: processes that it leaves to its daemons, and forks.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("name", RUNS)
def test_kills_at_random_moments(tmp_path, uninterrupted, name):
    """Four of each kind of run."""
    draw = np.random.default_rng([2026, list(RUNS).index(name)])
    kills = 0
    while kills < 4:
        number = SIGNALS[draw.integers(len(SIGNALS))]
        share, delay = draw.uniform(0, 1), draw.uniform(0, 0.5)
        folder = tmp_path / f"run{draw.integers(2**31)}"
        if not kill(name, number, share, delay, folder):
            continue  # it was at its end already
        kills += 1
        check(name, folder, uninterrupted)
    if "workers" in name:
        sys.modules["ray"].shutdown()
        gc.collect()

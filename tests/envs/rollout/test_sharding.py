"""Particles over several devices: eight simulated ones, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import counting
import numpy as np
import pytest
from estimator_table import ESTIMATORS

from pes_rl.envs.rollout.sharding import shard

TESTS = Path(__file__).parents[2] / "helpers"
QUICK = ("pes, normalized", "nres", "es", "truncated-es")
RANKING = ("ars", "random-search", "nres, ranks")
"""Estimators that rank the particles of all devices."""
FOR_THE_LOG = ["all-gather f32 6,32", "all-gather pred 6,32"]
"""Losses and arrivals, of 6 updates and 32 particles, after the loop over updates."""


def run_on_eight(out: Path, names) -> dict[str, np.ndarray]:
    path = os.pathsep.join([str(TESTS), *sys.path])
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(TESTS / "eight_devices.py"), str(out), *names],
        env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))


def check_results(results, name):
    """Within float32 rounding; Adam's steps are of the size of its rate, 0.01."""
    of = {
        field: [results[f"{name} {count} {field}"] for count in ("one", "eight")]
        for field in ("theta", "particle_loss", "env_steps", "episodes")
    }
    np.testing.assert_allclose(*of["theta"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(*of["particle_loss"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(*of["env_steps"])
    np.testing.assert_array_equal(*of["episodes"])


def check_collectives(results, name):
    """Sums over the population, and what the log shows once for all updates."""
    found = list(results[f"{name} collectives"])
    for gathered in FOR_THE_LOG:
        found.remove(gathered)
    if name.endswith("normalized"):
        found.remove("all-gather f32 8,2")  # an observation of each device
    assert found
    assert all(each.startswith("all-reduce") for each in found)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_on_eight(tmp_path_factory.mktemp("eight") / "results.npz", QUICK)


@pytest.mark.parametrize("name", QUICK)
def test_eight_devices_agree_with_one(results, name):
    check_results(results, name)


@pytest.mark.parametrize("name", QUICK)
def test_sums_are_all_that_devices_exchange(results, name):
    check_collectives(results, name)


@pytest.mark.parametrize("name", QUICK)
def test_states_and_accumulators_are_cut_into_eighths(results, name):
    """But for the single particle of truncated-es, and what belongs to no particle."""
    layout = {(int(whole), int(part)) for whole, part in results[f"{name} layout"]}
    assert all(part == (4 if whole == 32 else whole) for whole, part in layout)
    assert ((32, 4) in layout) == (name != "truncated-es")


def test_one_row_serves_the_particles_of_all_devices(results):
    losses = [results[f"one row, {count}"] for count in ("one", "eight")]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert np.ptp(losses[0]) > 0


@pytest.mark.slow
def test_every_estimator_on_eight_devices(tmp_path):
    names = [*ESTIMATORS, "pes, remembering", "truncated-es, remembering"]
    results = run_on_eight(tmp_path / "results.npz", names)
    for name in names:
        check_results(results, name)
        if name not in RANKING:
            check_collectives(results, name)


def test_more_devices_than_there_are_say_how_to_simulate_them():
    flags = "XLA_FLAGS=--xla_force_host_platform_device_count=8"
    with pytest.raises(ValueError, match=f"devices=8.* has 1 .*{flags}"):
        shard(counting.device_rollout(), 8, "num_pairs", 8)


def test_simulations_on_the_host_are_referred_to_threads_and_workers():
    rollout = counting.host_rollout()
    assert shard(rollout, 1, "num_pairs", 8) is rollout
    with pytest.raises(ValueError, match=r"devices=2 .*num_threads .*workers"):
        shard(rollout, 2, "num_pairs", 8)


def test_one_device_changes_nothing():
    rollout = counting.device_rollout()
    assert shard(rollout, 1, "num_pairs", 3) is rollout

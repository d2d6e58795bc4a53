"""Runs and studies of earlier versions: they can be loaded, evaluated and resumed.

The archives in tests/pes_rl/fixtures hold runs of version 0.1.0 at commit 2a490a2,
complete but for their later checkpoints; config.json in each says with which command.
"""

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import pes_rl
from pes_rl import evaluate
from pes_rl.studies.study import read_study
from pes_rl.training import command

pytestmark = pytest.mark.user_compilation

FIXTURES = Path(__file__).parents[1] / "fixtures"
RESULTS = Path(__file__).parents[3] / "results"
CHECKPOINTS = {"native": 2520, "device": 1600}


@pytest.fixture(params=CHECKPOINTS)
def older_run(request, tmp_path):
    run = tmp_path / request.param
    with tarfile.open(FIXTURES / f"run_{request.param}_0_1_0.tar.gz") as archive:
        archive.extractall(run, filter="data")
    return run


COLUMNS = (
    *("time/total_timesteps", "time/iterations", "rollout/ep_rew_mean"),
    *("rollout/ep_len_mean", "eval/mean_reward", "eval/std_reward"),
    *("eval/mean_ep_length", "train/learning_rate", "train/sigma", "train/theta_norm"),
    *("pes/gradient_norm", "pes/signal_to_noise", "pes/accumulator_norm"),
    *("pes/ended_share", "pes/dropped_simulations", "pes/lost_workers"),
)
"""Of the log of 0.1.0, but for the two that are times."""


def read_rows(run):
    with (run / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def log(run):
    rows = read_rows(run)
    return np.array([[float(row[name] or "nan") for name in COLUMNS] for row in rows])


def times(run):
    return np.array([float(row["time/time_elapsed"]) for row in read_rows(run)])


def test_a_policy_of_an_older_run_acts_and_is_evaluated(older_run, capsys):
    policy = pes_rl.load_policy(older_run)
    action = policy(np.zeros(policy.policy.observation_size))
    assert np.isfinite(action).all()
    assert evaluate.main([str(older_run), "--episodes", "2"]) == 0
    assert "over 2 episodes" in capsys.readouterr().out


def test_an_older_run_is_resumed_to_the_same_end(older_run):
    """From a checkpoint in its middle; another CPU may round otherwise."""
    before, summary = log(older_run), (older_run / "summary.json").read_text()
    old_times = times(older_run)
    (at,) = (older_run / "checkpoints").iterdir()
    assert int(at.name) == CHECKPOINTS[older_run.name]
    assert before[-1, 0] > int(at.name)
    assert command.main(["--resume", str(older_run)]) == 0
    np.testing.assert_allclose(log(older_run), before, rtol=1e-5)
    kept = before[:, 0] <= int(at.name)  # Later rows are computed again.
    assert ((times(older_run) == old_times) == kept).all()
    after = json.loads((older_run / "summary.json").read_text())
    final = json.loads(summary)["final_return"]
    assert after["final_return"] == pytest.approx(final, rel=1e-5)
    versions = json.loads((older_run / "config.json").read_text())["made_by"]
    assert versions[0] == "pes-rl 0.1.0 at 2a490a2"


@pytest.mark.parametrize(
    "path",
    sorted(RESULTS.rglob("*.toml")),
    ids=lambda path: str(path.relative_to(RESULTS)),
)
def test_published_studies_can_be_read(path):
    assert read_study(path).runs

"""Runs resumed, saved and loaded from Python; schedules that are functions."""

import csv
import dataclasses
import json
import shutil
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium_counting import GymnasiumCounting
from quick_run import QUICK

import pes_rl
from pes_rl.config.train_config import make_config
from pes_rl.training import command
from pes_rl.training.metrics import COLUMNS

SCHEDULES: dict[str, Any] = {
    "learning_rate": lambda progress: 0.1 * (1 - progress) ** 2,
    "sigma": lambda progress: 0.3 - 0.2 * progress,
}


class StopAt(pes_rl.Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_log(self, run, row):
        if run.timesteps >= self.steps:
            run.interrupt("the test")


def rows(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose learning rate and sigma follow functions."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return pes_rl.train("swimmer", logdir=folder, **QUICK, **SCHEDULES)


def test_the_log_has_the_values_of_the_functions(whole):
    log = [row for row in rows(whole.folder) if row["train/sigma"]]
    assert len(log) == 6
    # Of the steps that are used after the row's updates.
    for name in ("learning_rate", "sigma", "reward_shift"):
        assert "next update" in COLUMNS[f"train/{name}"]
    for row in log:
        progress = int(row["time/total_timesteps"]) / QUICK["total_timesteps"]
        rate, sigma = (SCHEDULES[name](progress) for name in ("learning_rate", "sigma"))
        assert float(row["train/learning_rate"]) == pytest.approx(rate, abs=1e-8)
        assert float(row["train/sigma"]) == pytest.approx(sigma, rel=1e-6)


def test_the_folder_says_that_they_are_functions(whole):
    config = json.loads((whole.folder / "config.json").read_text())
    assert set(config["functions"]) == {"learning_rate", "sigma"}
    assert "<lambda>, test_resume_api.py line" in config["functions"]["sigma"]
    assert config["settings"]["sigma"] == pytest.approx(0.3)
    assert config["settings"]["final_sigma"] is None


def test_a_resumed_run_needs_its_functions_and_ends_the_same(tmp_path, whole, capsys):
    folder = tmp_path / "run"
    stopped = pes_rl.train(
        "swimmer", logdir=folder, callbacks=[StopAt(120)], **QUICK, **SCHEDULES
    )
    assert stopped.summary["interrupted"]
    with pytest.raises(ValueError, match=r"learning_rate of .* give it again"):
        pes_rl.train(resume=folder, sigma=0.1)
    assert command.main(["--resume", str(folder)]) == 2
    assert "resume it in Python: pes_rl.train(resume=" in capsys.readouterr().err
    resumed = pes_rl.train(resume=folder, **SCHEDULES)
    assert resumed.folder == folder
    np.testing.assert_array_equal(resumed.theta, whole.theta)
    assert resumed.summary["final_return"] == whole.summary["final_return"]


def test_a_number_may_take_the_place_of_a_function(tmp_path, whole):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    at = folder / "checkpoints" / "160"
    resumed = pes_rl.train(resume=at, sigma=0.25, learning_rate=0.05)
    assert [float(row["train/sigma"]) for row in rows(folder)[-2:]] == [0.25, 0.25]
    assert resumed.summary["total_timesteps"] == 240
    assert json.loads((folder / "config.json").read_text())["functions"] == {}


def test_a_run_that_has_ended_continues_with_a_larger_budget(tmp_path):
    """Schedules are those of the longer run: half of it is used when it goes on."""
    folder = tmp_path / "run"
    options: dict[str, Any] = {"learning_rate_decay": "linear", "seed": 3}
    options |= {"learning_rate": 0.1, "min_schedule_timesteps": 0}
    pes_rl.train("swimmer", logdir=folder, **QUICK, **options)
    continued = pes_rl.train(resume=str(folder), total_timesteps=480)
    assert continued.summary["total_timesteps"] == 480
    rate = {
        int(row["time/total_timesteps"]): float(row["train/learning_rate"])
        for row in rows(folder)[1:]
    }
    assert rate[240] == pytest.approx(0.0, abs=1e-8)
    assert rate[280] == pytest.approx(0.1 * (1 - 280 / 480), rel=1e-5)
    assert rate[480] == pytest.approx(0.0, abs=1e-8)


def test_a_best_final_evaluation_stays_the_best(tmp_path, whole):
    """It comes after the last checkpoint, and the best policy is its."""
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"best_return": 1e6, "timesteps_to_threshold": 240}
    (folder / "summary.json").write_text(json.dumps(summary))
    before = (folder / "policy" / "best.npz").read_bytes()
    more = pes_rl.train(resume=folder, total_timesteps=280, **SCHEDULES).summary
    assert (more["best_return"], more["timesteps_to_threshold"]) == (1e6, 240)
    assert more["total_timesteps"] == 280
    assert (folder / "policy" / "best.npz").read_bytes() == before


def test_another_threshold_counts_from_the_start_of_the_run(tmp_path, whole):
    """What the old one said of the run does not stay, nor end the resumed run."""
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    low = pes_rl.train(resume=folder, threshold=-1000.0, **SCHEDULES)
    assert low.summary["timesteps_to_threshold"] == 0
    more: dict[str, Any] = {"total_timesteps": 320, "stop_at_threshold": True}
    high = pes_rl.train(resume=folder, threshold=1e6, **more, **SCHEDULES)
    assert high.summary["timesteps_to_threshold"] is None
    assert high.summary["ended_by"] == "the budget"
    assert high.summary["total_timesteps"] == 320


def test_a_run_on_a_constructor_is_resumed_with_it(tmp_path):
    folder = tmp_path / "run"
    pes_rl.train(GymnasiumCounting, logdir=folder, **QUICK)
    more = pes_rl.train(GymnasiumCounting, resume=folder, total_timesteps=320)
    assert more.summary["total_timesteps"] >= 320
    with pytest.raises(ValueError, match="was passed as a Python object"):
        pes_rl.train(resume=folder, total_timesteps=400)


def test_a_result_is_saved_and_loaded(tmp_path, whole):
    saved = whole.save(tmp_path / "saved")
    files = {str(f.relative_to(saved)) for f in saved.rglob("*") if f.is_file()}
    assert files == {
        "config.json",
        "summary.json",
        "policy/best.npz",
        "policy/last.npz",
    }
    for folder in (saved, whole.folder):
        loaded = pes_rl.Result.load(folder)
        assert loaded.folder == folder
        assert loaded.summary == whole.summary
        np.testing.assert_array_equal(loaded.theta, whole.theta)
        observation = np.ones(8)
        action, state = loaded.policy.predict(observation, deterministic=True)
        np.testing.assert_array_equal(action, whole.policy(observation))
        assert state is None
    with pytest.raises(ValueError, match="is not empty; save the result in a new"):
        whole.save(saved)
    with pytest.raises(ValueError, match="is not a run folder"):
        pes_rl.Result.load(tmp_path)


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (None, {}, "env is missing; give a name such as 'swimmer'"),
        ("swimmer", {"resume": "RUN"}, "RUN is not a run folder"),
        (
            gymnasium.make("Pendulum-v1"),
            {},
            "write 'gym:Pendulum-v1', or a function: lambda: gymnasium.make('Pend",
        ),
        (GymnasiumCounting(), {}, "give the class GymnasiumCounting, or a function"),
        ("swimmer", {"callbacks": StopAt(3)}, "must be a list of objects, such as [My"),
        ("swimmer", {"callbacks": [StopAt]}, "must be a list of objects, such as [MyC"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_helps(env, options, message):
    with pytest.raises(ValueError) as refused:
        pes_rl.train(env, **options)
    assert message in str(refused.value)


def test_what_a_resumed_run_cannot_change_is_refused(tmp_path, capsys):
    """In both interfaces; the run's own folder and seed may be named."""
    run = tmp_path / "run"
    run.mkdir()
    settings = dataclasses.asdict(make_config("swimmer", "pes", seed=4))
    (run / "config.json").write_text(json.dumps({"settings": settings}))
    same: dict[str, Any] = {"logdir": str(run), "seed": 4}
    changes = {"logdir": "x", "seed": 5}
    for name, value in changes.items():
        message = f"{name}={value!r} has no meaning with resume"
        with pytest.raises(ValueError, match=message):
            pes_rl.train(resume=run, **{name: value})
        options = ["--resume", str(run), f"--{name}={value}"]
        assert command.main(options) == 2
        assert message in capsys.readouterr().err
    options = [f"--{name}={value}" for name, value in same.items()]
    assert command.parse(["--resume", str(run), *options]).resume == str(run)


def test_unknown_options_of_a_resumed_run_are_refused(whole):
    with pytest.raises(ValueError, match="unknown option 'sigmaa'; use one of: sigma"):
        pes_rl.train(resume=whole.folder, sigmaa=1, **SCHEDULES)

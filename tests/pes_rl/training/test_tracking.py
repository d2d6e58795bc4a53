"""Tracking by Weights & Biases and Trackio: what they get, and that they end no run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from event_files import events
from quick_run import QUICK

import pes_rl
from pes_rl.training import command, tracking
from pes_rl.training.callbacks import Callback

ROOT = Path(__file__).parents[3]


class Films(Callback):
    """A video at every evaluation, without a renderer."""

    def on_evaluation(self, run, evaluation):
        run.log_video("eval/video", [np.zeros((8, 8, 3), np.uint8)] * 2, fps=10)


class Service:
    """A stand-in for the packages that keeps what it is given."""

    def __init__(self, fails=()):
        self.fails, self.started, self.logged, self.ended = fails, [], [], 0

    Settings = staticmethod(lambda **settings: settings)
    Histogram = staticmethod(lambda values: ("histogram", len(values)))

    def Video(self, path, format):
        return "video", format, Path(path).read_bytes()[:3]

    def init(self, **options):
        self.started.append(options)
        self._fail("init")
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values, step):
        self._fail("log")
        self.logged.append((step, values))

    def finish(self):
        self.ended += 1
        self._fail("finish")

    def _fail(self, what):
        if what in self.fails:
            raise KeyError(f"{what} is broken")


@pytest.fixture
def serve(monkeypatch):
    def install(service):
        monkeypatch.setattr(tracking, "find_spec", lambda name: True)
        monkeypatch.setattr(tracking, "import_module", lambda name: service)
        return service

    return install


def train(folder, **options):
    options = {"callbacks": [Films()], **QUICK, **options}
    return pes_rl.train("swimmer", "pes", logdir=folder, **options)


def tensorboard(folder):
    """Tags with their steps in the event files, without the hyperparameter tab."""
    return {
        (value.tag, event.step)
        for event in events(folder)
        for value in event.summary.value
        if not value.tag.startswith(("result/", "_hparams_"))
    }


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_service_gets_what_tensorboard_gets(kind, serve, tmp_path):
    service = serve(Service())
    result = train(tmp_path / "run", track=kind, seed=3)
    sent = {(tag, step) for step, values in service.logged for tag in values}
    ends = {one for one in sent if one[0].startswith("result/")}
    assert sent - ends == tensorboard(tmp_path / "run")
    assert ("result/final_return", 240) in ends
    rows = [values for _, values in service.logged if "eval/mean_reward" in values]
    assert rows[-1]["particles/return"] == ("histogram", 4)
    films = [values["eval/video"] for _, values in service.logged if len(values) == 1]
    assert films == [("video", "gif", b"GIF")] * len(rows)
    (options,) = service.started
    assert options["config"]["seed"] == 3
    assert options["group"] == "swimmer pes"
    assert service.ended == 1
    untracked = train(tmp_path / "plain", seed=3)
    np.testing.assert_array_equal(result.theta, untracked.theta)
    assert not (tmp_path / "plain" / "tracking.json").exists()


def test_a_resumed_run_goes_on_in_the_service(serve, tmp_path):
    service = serve(Service())
    run = str(tmp_path / "run")
    train(run, track="wandb", total_timesteps=80)
    assert command.main(["--resume", run, "--total-timesteps", "160"]) == 0
    first, second = service.started
    assert first["id"] == second["id"]
    train(tmp_path / "other", track="wandb", total_timesteps=80)
    assert service.started[-1]["id"] != first["id"]


@pytest.mark.parametrize("what", ["init", "log", "finish"])
def test_a_service_that_fails_ends_no_run(what, serve, tmp_path, capsys):
    service = serve(Service(fails=(what,)))
    train(tmp_path / "run", track="trackio")
    assert (tmp_path / "run" / "summary.json").exists()
    lines = capsys.readouterr().out.splitlines()
    failures = [line for line in lines if "trackio failed" in line]
    (line,) = failures  # Once, however often it failed.
    assert f"{what} is broken" in line
    assert service.ended == (what != "init")


def test_a_missing_package_is_named_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'pes-rl\[wandb\]'"):
        train(tmp_path / "run", track="wandb")
    assert not (tmp_path / "run").exists()


def test_an_unknown_service_is_refused():
    with pytest.raises(ValueError, match="track='mlflow' must be 'wandb', 'trackio'"):
        pes_rl.train("swimmer", track="mlflow")


def run_offline(folder, kind, **variables):
    """A run in a process of its own: both packages read variables at import."""
    options = {**QUICK, "track": kind, "logdir": str(folder)}
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1]);"
        "from test_tracking import Films; import pes_rl;"
        f"pes_rl.train('swimmer', callbacks=[Films()], **{options!r})"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env={**here, **variables},
        check=True,
        cwd=folder.parent,
    )


def test_wandb_offline_keeps_the_run_in_its_folder(tmp_path):
    pytest.importorskip("wandb")
    run_offline(tmp_path / "run", "wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    identity = json.loads((tmp_path / "run" / "tracking.json").read_text())["wandb"]
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert kept.name.endswith(identity)
    content = (kept / f"run-{identity}.wandb").read_bytes()
    for tag in ("eval/mean_reward", "pes/gradient_norm", "result/final_return"):
        assert tag.encode() in content
    films = {path.read_bytes()[:3] for path in kept.rglob("eval/video_*.gif")}
    assert films == {b"GIF"}


def test_trackio_keeps_the_run_in_its_folder(tmp_path):
    pytest.importorskip("trackio")
    place = tmp_path / "trackio"
    run_offline(tmp_path / "run", "trackio", TRACKIO_DIR=str(place))
    code = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as storage;"
        "(run,) = storage.get_runs('pes_rl');"
        "print(json.dumps(storage.get_logs('pes_rl', run)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRACKIO_DIR": str(place)},
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads(shown.stdout.splitlines()[-1])
    sent = {(tag, row["step"]) for row in rows for tag in row}
    assert tensorboard(tmp_path / "run") <= sent
    assert ("result/final_return", 240) in sent
    assert len(list(place.rglob("*.gif"))) == 4

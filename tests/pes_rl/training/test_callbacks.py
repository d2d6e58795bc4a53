"""Callbacks, and what a run survives."""

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from event_files import events
from quick_run import QUICK
from tensorboardX.proto import plugin_hparams_pb2

import pes_rl
from pes_rl.config.train_config import make_config
from pes_rl.learner.evaluation import Evaluation
from pes_rl.run_folder.policy_files import load_policy
from pes_rl.run_folder.writer import RunFolder
from pes_rl.training.callbacks import Callback
from pes_rl.training.checkpoints import Checkpoints
from pes_rl.training.metrics import COLUMNS
from pes_rl.training.trainer import Trainer


def make_trainer(folder, callbacks=(), **options):
    config = make_config("swimmer", "pes", **{**QUICK, **options})
    return Trainer(config, folder, callbacks=callbacks)


def rows(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Recorder(Callback):
    def __init__(self):
        self.rows, self.evaluations, self.extra = [], [], []

    def on_log(self, run, row):
        self.rows.append((run.timesteps, dict(row)))

    def on_evaluation(self, run, evaluation):
        self.evaluations.append((run.timesteps, evaluation.returns.mean()))
        self.extra += [run.evaluate().returns.mean() for _ in range(2)]


def test_callbacks_see_what_is_logged_and_change_nothing(tmp_path):
    recorder = Recorder()
    seen = make_trainer(tmp_path / "seen", [recorder, Callback()]).run()
    plain = make_trainer(tmp_path / "plain").run()
    np.testing.assert_array_equal(seen.policy.theta, plain.policy.theta)
    log = rows(tmp_path / "seen")
    value = "eval/mean_reward"
    assert [row[value] for row in log] == [row[value] for row in rows(plain.folder)]
    steps = [int(row["time/total_timesteps"]) for row in log]
    assert [at for at, _ in recorder.rows] == steps == [0, 40, 80, 120, 160, 200, 240]
    assert [at for at, _ in recorder.evaluations] == [0, 80, 160, 240]
    assert len({*recorder.extra, *(mean for _, mean in recorder.evaluations)}) == 12


def test_the_front_door_takes_callbacks(tmp_path):
    recorder = Recorder()
    pes_rl.train("swimmer", logdir=tmp_path / "run", callbacks=[recorder], **QUICK)
    assert [at for at, _ in recorder.evaluations] == [0, 80, 160, 240]


def test_a_callback_stops_the_run_which_is_then_complete(tmp_path):
    class Stop(Callback):
        def on_evaluation(self, run, evaluation):
            if run.timesteps >= 80:
                run.request_stop("no better in sight")

        def on_log(self, run, row):
            if run.timesteps == 40:
                run.request_checkpoint()

    result = make_trainer(
        tmp_path / "run",
        [Stop()],
        checkpoint_interval=10**6,
        final_eval_episodes=3,
    ).run()
    assert not result.summary["interrupted"]
    assert result.summary["ended_by"] == "no better in sight"
    assert result.summary["final_episodes"] == 3
    assert result.summary["total_timesteps"] == 80
    checkpoints = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert checkpoints == {"40", "80"}


def test_a_callback_interrupts_the_run_as_a_signal_does(tmp_path):
    class Interrupt(Callback):
        def on_log(self, run, row):
            run.interrupt("a deadline")

    run = tmp_path / "run"
    result = make_trainer(run, [Interrupt()], final_eval_episodes=3).run()
    assert result.summary["interrupted"]
    assert result.summary["ended_by"] == "a deadline"
    assert result.summary["final_return"] is None
    last = result.summary["last_return_timesteps"], result.summary["last_return"]
    assert last == (0, pytest.approx(float(rows(run)[0]["eval/mean_reward"])))
    resumed = Trainer(make_config("swimmer", "pes", **QUICK), run, resume="newest")
    assert resumed.run().summary["ended_by"] == "the budget"


def test_a_failing_evaluation_is_shown_and_training_goes_on(
    tmp_path, monkeypatch, capsys
):
    """The first, the second and the last one fail."""
    trainer = make_trainer(tmp_path / "run")
    calls, sound = [], trainer._parts.evaluate

    def evaluate(theta, observations, key):
        calls.append(key)
        if len(calls) <= 2:
            raise RuntimeError("a lost worker")
        return sound(theta, observations, key)

    def evaluate_finally(theta, observations, key):
        raise MemoryError("too many episodes")

    failing = {"evaluate": evaluate, "evaluate_finally": evaluate_finally}
    monkeypatch.setattr(trainer, "_parts", replace(trainer._parts, **failing))
    result = trainer.run()
    assert result.summary["total_timesteps"] == 240
    evaluated = [row["eval/mean_reward"] != "" for row in rows(tmp_path / "run")]
    assert evaluated == [False, False, False, False, True, False, True]
    shown = capsys.readouterr().out
    assert shown.count("evaluation failed, training continues") == 3
    assert "a lost worker" in shown
    assert result.summary["final_return"] is None
    assert result.summary["last_return_timesteps"] == 240


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB; only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("no file system can be mounted here")
    yield disk
    os.system(f"umount -l {disk}")


def test_a_full_disk_costs_what_was_to_be_written_and_nothing_else(small_disk, capsys):
    """Full from 80 steps on, and emptied again at 200."""
    ballast = small_disk / "ballast"

    class Fill(Callback):
        def on_log(self, run, row):
            if run.timesteps == 80:
                with ballast.open("wb", buffering=0) as file:
                    try:
                        while file.write(b"0" * 4096):
                            pass
                    except OSError:
                        pass
            if run.timesteps == 200:
                ballast.unlink()

    run = small_disk / "run"
    result = make_trainer(run, [Fill()], checkpoint_interval=40).run()
    assert result.summary["total_timesteps"] == 240
    shown = capsys.readouterr().out
    assert "checkpoint not saved, training continues" in shown
    assert "No space left on device" in shown
    steps = [int(row["time/total_timesteps"]) for row in rows(run)]
    assert {0, 40, 80, 240} <= set(steps)
    assert steps == sorted(set(steps))
    assert {event.step for event in events(run)} >= {40, 240}
    config = make_config("swimmer", "pes", **QUICK)
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert left == {"40", "200", "240"}  # and nothing of those that failed
    resumed = Trainer(config, run, resume="newest")
    assert resumed.timesteps == 240
    assert not resumed.run().summary["interrupted"]


def test_a_disk_that_is_full_between_two_saves(tmp_path, monkeypatch, capsys):
    """The save that fails is shown; the next one succeeds and can be resumed from."""
    sound, calls = Checkpoints.save, []

    def save(self, *arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        sound(self, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save)
    make_trainer(tmp_path / "run").run()
    assert capsys.readouterr().out.count("training continues") == 1
    saved = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert saved == {"160", "240"}


def test_the_last_policy_is_saved_where_no_checkpoint_can_be(tmp_path, monkeypatch):
    """It is much smaller, and the return in the summary is its return."""
    run = tmp_path / "run"

    def save(self, state, counters):
        if counters.timesteps > 80:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save", save)
    result = make_trainer(run).run()
    np.testing.assert_array_equal(load_policy(run, "last").theta, result.theta)


def test_tensorboard_shows_distributions_and_hyperparameters(tmp_path):
    result = make_trainer(tmp_path / "run").run()
    assert [path.name for path in result.folder.iterdir() if path.is_dir()] != []
    assert len(list(result.folder.rglob("events.out.tfevents.*"))) == 1
    found = events(result.folder)
    values = {}
    for event in found:
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value))
    phases = values["particles/phase"]
    assert [step for step, _ in phases] == [0, 80, 160, 240]
    assert all(value.histo.num == 4 for _, value in phases)
    # Particles start together at a phase that steps of 10 in 40 move on.
    assert all(0 <= value.histo.min <= value.histo.max < 1 for _, value in phases)
    assert [step for step, _ in values["particles/return"]] == [80, 160, 240]
    assert values["eval/mean_reward"][-1][0] == 240
    assert "_hparams_/session_start_info" in values
    final = values["result/final_return"][0][1].simple_value
    assert final == pytest.approx(result.summary["final_return"], rel=1e-6)


def test_every_tag_in_tensorboard_is_described_once(tmp_path):
    result = make_trainer(tmp_path / "run").run()
    values = [value for event in events(result.folder) for value in event.summary.value]
    described = [v.tag for v in values if v.metadata.summary_description]
    tags = {v.tag for v in values if not v.tag.startswith("_hparams_")}
    assert sorted(described) == sorted(tags)
    (norm,) = (
        v for v in values if v.tag == "train/theta_norm" and v.HasField("metadata")
    )
    assert norm.metadata.summary_description == COLUMNS["train/theta_norm"]


def test_tensorboard_reads_the_descriptions(tmp_path):
    proto = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    result = make_trainer(tmp_path / "run").run()
    kinds = {}
    for event in events(result.folder):
        for value in proto.Event.FromString(event.SerializeToString()).summary.value:
            if value.metadata.summary_description:
                name = value.metadata.plugin_data.plugin_name
                kinds[value.tag] = name, value.metadata.data_class
    # DATA_CLASS_SCALAR and DATA_CLASS_TENSOR.
    assert kinds["train/theta_norm"] == ("scalars", 1)
    assert kinds["particles/phase"] == ("histograms", 2)


def test_the_hyperparameter_tab_begins_with_the_estimator(tmp_path):
    result = make_trainer(tmp_path / "run").run()
    (experiment,) = (
        value
        for event in events(result.folder)
        for value in event.summary.value
        if value.tag == "_hparams_/experiment"
    )
    data: Any = plugin_hparams_pb2.HParamsPluginData()  # type: ignore[attr-defined]
    data.ParseFromString(experiment.metadata.plugin_data.content)
    names = [info.name for info in data.experiment.hparam_infos]
    first = ["agent", "learning_rate", "sigma", "truncation_length", "num_pairs", "env"]
    assert names[:6] == first
    assert len(names) == len(set(names))


def test_a_log_that_cannot_be_written_begins_a_new_file(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", COLUMNS)
    folder.log({"time/total_timesteps": 1, "time/fps": 1.0})

    def full(self, event):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pes_rl.run_folder.tensorboard.EventsWriter.write_event", full)
        with pytest.raises(OSError, match="No space"):
            folder.log({"time/total_timesteps": 2, "time/fps": float(jnp.ones(()))})
    folder.log({"time/total_timesteps": 3, "time/fps": 3.0})
    folder.close()
    assert len(list((tmp_path / "run").glob("events.*"))) == 2
    assert {event.step for event in events(tmp_path / "run")} == {0, 1, 3}


def test_the_example_of_the_manual_ends_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs" / "callbacks.md").read_text()
    code = text.split("<!-- callback -->\n```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    returns = [value for _, value in names["stopping"].returns]
    best, summary = int(np.argmax(returns)), names["result"].summary
    assert summary["ended_by"] == "no improvement"
    assert len(returns) == best + 3
    assert summary["total_timesteps"] < 200_000
    checkpoints = {int(p.name) for p in names["result"].folder.glob("checkpoints/*")}
    assert summary["total_timesteps"] in checkpoints


def test_the_first_parameters_are_not_the_best_of_a_short_run(tmp_path, capsys):
    """Parameters of 0 often do better than those of a few updates."""
    trainer = make_trainer(tmp_path / "run")
    worse_and_worse = iter(range(10, 0, -1))

    def evaluate(*_: Any) -> Evaluation:
        returns = np.full(2, float(next(worse_and_worse)))
        return Evaluation(returns, np.full(2, 40), np.zeros(2, bool))

    trainer._parts = replace(
        trainer._parts, evaluate=evaluate, evaluate_finally=evaluate
    )
    result = trainer.run()
    assert rows(result.folder)[0]["eval/mean_reward"] == "10.0"
    assert result.summary["best_return"] == 9.0
    assert (pes_rl.load_policy(result.folder, "best").theta != 0).any()
    assert "warning: the budget ends at 0% of the schedules" in capsys.readouterr().out

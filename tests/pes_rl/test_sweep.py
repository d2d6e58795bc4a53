"""The search for settings: a space in, a report and a study of the best out."""

import csv
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pes_rl import sweep
from pes_rl.learner.evaluation import Evaluation
from pes_rl.studies import sweep_trials
from pes_rl.studies.study import read_study
from pes_rl.studies.sweep_report import as_study
from pes_rl.studies.sweep_space import read_space

optuna = pytest.importorskip("optuna")
pytest.importorskip("sklearn")

SPACE = """
env = "swimmer"
agent = "pes"
seeds = [100]
total_timesteps = 80
horizon = 40
eval_interval = 40
eval_episodes = 1
final_eval_episodes = 2
log_interval = 1
truncation_length = 10
policy = "mlp"
[search]
sigma = { low = 0.05, high = 0.5, log = true }
num_pairs = { low = 1, high = 3 }
hidden_sizes = [[4], [4, 4]]
"""


@pytest.fixture
def space_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


def run(path, trials):
    return sweep.main([str(path), "--trials", str(trials), "--jobs", "1"])


def test_a_sweep_goes_on_where_it_was_cut_off_and_reports(
    space_file, capsys, monkeypatch
):
    out = space_file.parent / "runs" / "sweep" / "space"
    assert run(space_file, 2) == 0
    space = read_space(space_file)
    study = sweep_trials.open_study(space, out)
    cut_off = study.ask()
    settings = space.suggest(cut_off)  # and then the process is killed
    # The first trials were in a process of their own; these are in this one.
    monkeypatch.setattr(sweep_trials, "worker_pool", ThreadPoolExecutor)
    assert run(space_file, 4) == 0
    with (out / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    states = [trial["state"] for trial in trials]
    assert states == ["complete", "complete", "fail", "complete", "complete"]
    assert float(trials[3]["sigma"]) == settings["sigma"]
    assert len({trial["sigma"] for trial in trials}) == 4
    report = (out / "report.md").read_text()
    assert report in capsys.readouterr().out
    assert "4 complete, 0 pruned, 0 refused" in report
    shares = [
        float(line.split("|")[2])
        for line in report.split("What mattered")[1].splitlines()
        if line.startswith("| ") and "share" not in line
    ]
    assert sum(shares) == pytest.approx(1.0, abs=0.02)
    assert (out / "importances.png").read_bytes().startswith(b"\x89PNG")

    best, *_, default = read_study(out / "best.toml").runs
    returns = [float(trial["final_return"] or "-inf") for trial in trials]
    winner = trials[int(np.argmax(returns))]
    assert best.config.sigma == float(winner["sigma"])
    assert best.config.num_pairs == int(winner["num_pairs"])
    assert best.config.seed == 101
    assert best.config.truncation_length == 10
    assert default.config.total_timesteps == 80
    assert default.config.truncation_length == 40  # the horizon

    space_file.write_text(SPACE.replace("high = 3", "high = 4"))
    assert run(space_file, 5) == 2
    assert "holds a sweep of another space" in capsys.readouterr().err


class FakeTrial:
    def __init__(self, prune_at):
        self.reported, self._prune_at = {}, prune_at

    def report(self, value, step):
        self.reported[step] = value

    def should_prune(self):
        return max(self.reported) >= self._prune_at


class FakeRun:
    timesteps, stopped = 0, False

    def interrupt(self, reason):
        self.stopped = True


def test_a_trial_reports_the_mean_over_its_seeds_and_stops_where_told(space_file):
    space = read_space(space_file)
    config = space.config(space.example(), 100)
    trial, run = FakeTrial(prune_at=4), FakeRun()
    reporter = sweep_trials.Reporter(trial, config, (10.0,))

    def evaluation(value):
        return Evaluation(np.array([value]), np.ones(1), np.zeros(1, bool))

    for run.timesteps, value in ((0, 0.0), (45, 20.0)):
        assert not run.stopped
        reporter.on_evaluation(run, evaluation(value))  # type: ignore
    # Three evaluations of the first seed come before: at 0, 40 and 80 steps.
    assert trial.reported == {3: 5.0, 4: 15.0}
    assert run.stopped
    assert reporter.pruned
    ended = sweep_trials.Reporter(trial, config, (10.0,))
    run = FakeRun()
    run.timesteps = 80
    ended.on_evaluation(run, evaluation(0.0))  # type: ignore
    assert not run.stopped


def test_settings_that_do_not_go_together_are_a_refused_trial(space_file):
    space_file.write_text(SPACE.replace("horizon = 40", "horizon = 5"))
    space, out = read_space(space_file), space_file.parent / "out"
    study = sweep_trials.open_study(space, out)
    trial = study.ask()
    said = sweep_trials._try(space, out, trial._trial_id, space.suggest(trial))
    assert "was refused: truncation_length=10 is longer than the horizon" in said
    assert sweep_trials.count_done(study) == 1


def test_the_pruner_stops_what_is_below_the_median(space_file):
    space, out = read_space(space_file), space_file.parent / "out"
    study = sweep_trials.open_study(space, out)
    for value in range(5):
        trial = study.ask()
        trial.report(float(value), 1)
        study.tell(trial, float(value))
    for value, pruned in ((1.5, True), (2.5, False)):
        trial = study.ask()
        trial.report(value, 1)
        assert trial.should_prune() == pruned


def test_the_best_settings_are_written_as_they_are(space_file):
    space = read_space(space_file)
    parameters = {"sigma": 0.25, "num_pairs": 2, "hidden_sizes": "[4, 4]"}
    path = space_file.parent / "best.toml"
    path.write_text(as_study(space, parameters))
    best = read_study(path).runs[0].config
    assert best == space.config(space.read(parameters), 101)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[search]", "[search", "cannot be read"),
        ("sigma =", "sigmas =", "unknown option 'sigmas'"),
        ("low = 0.05", "low = -1", "low must be below high, and above 0 with log"),
        ("low = 1,", "", "write a list of choices"),
        ('agent = "pes"', "", "needs an env and an agent"),
        ("seeds = [100]", "seeds = []", "has no seed"),
        ("high = 3", "high = 0.5", "low must be below high"),
    ],
)
def test_a_bad_space_ends_in_one_line(space_file, capsys, old, new, message):
    space_file.write_text(SPACE.replace(old, new))
    assert run(space_file, 1) == 2
    assert message in capsys.readouterr().err
    assert not (space_file.parent / "runs").exists()


def test_without_the_extra_the_command_says_how_to_get_it(
    space_file, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(space_file, 1) == 2
    assert "pip install 'pes-rl[sweep]'" in capsys.readouterr().err

"""`compare --verify`: whether recorded results are what today's code gives."""

import csv
import doctest
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.stats import norm

from pes_rl import compare
from pes_rl.run_folder import provenance
from pes_rl.run_folder.provenance import (
    describe_maker,
    read_makers,
    record_maker,
    version_and_commit,
)
from pes_rl.studies import runner, verify
from pes_rl.studies.outcomes import Outcome
from pes_rl.studies.study import read_study

STUDY = """
env = "unrolled:influence-balancing"
total_timesteps = 12
eval_interval = 2
eval_episodes = 1
final_eval_episodes = 1
log_interval = 1
learning_rate_decay = "linear"

[[arm]]
name = "PES"
agent = "pes"
seeds = [0, 1]
num_pairs = 1

[[arm]]
agent = "rtrl"
seeds = [0]
"""
PART = "verify = {evaluations = 2}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a study that has been run."""
    folder = tmp_path_factory.mktemp("made") / "study"
    folder.mkdir()
    (folder / "study.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(compare, "run_study", in_this_process)
        assert compare.main([str(folder / "study.toml"), "--jobs", "1"]) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it in which the study has a short part to verify."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify, "run_study", in_this_process)
    for file in made.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "study.toml").write_text(PART + STUDY)
    return tmp_path


def in_this_process(study, runs_folder, jobs, evaluations=None):
    """`run_study` without the seconds that processes take to start."""
    for run in study.runs:
        runner._train([run], runs_folder, evaluations)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(folder, name, column, changed, **where):
    """Change a column of those rows of a CSV file that have the other values."""
    with (folder / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if where.items() <= row.items():
            row[column] = changed(float(row[column]))
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def verified(folder, *options):
    return compare.main([str(folder / "study.toml"), "--verify", *options])


def test_a_part_under_the_whole_budgets_schedules_is_the_same(folder, capsys):
    """The learning rate falls over 12 steps, of which 4 are taken."""
    before = files(folder)
    assert verified(folder) == 0
    assert capsys.readouterr().out.endswith(
        "PES (seed 0, 3 evaluations): same to the bit\n"
        "rtrl (seed 0, 3 evaluations): same to the bit\n"
    )
    assert files(folder) == before
    smaller_budget = STUDY.replace("total_timesteps = 12", "total_timesteps = 4")
    (folder / "study.toml").write_text(PART + smaller_budget)
    verified(folder)
    assert "differs from step 4 on" in capsys.readouterr().out


@pytest.mark.slow
def test_whole_runs_in_processes_are_the_same_and_reported(made, monkeypatch, capsys):
    monkeypatch.chdir(made.parent)
    assert verified(made, "--jobs", "1", "--report") == 0
    report = json.loads((made / "verified.json").read_text())
    assert report["verified_at"] == version_and_commit()
    assert report["part"] == {"seeds": 1, "evaluations": None}
    assert [(one["arm"], one["verdict"]) for one in report["arms"]] == [
        ("PES", "same to the bit"),
        ("rtrl", "same to the bit"),
    ]


def test_a_changed_number_is_stale(folder, capsys):
    change(
        folder, "curves.csv", "mean_reward", lambda x: x - 9, arm="rtrl", updates="4"
    )
    assert verified(folder) == 1
    shown = capsys.readouterr().out
    assert "PES (seed 0, 3 evaluations): same to the bit\n" in shown
    assert "rtrl (seed 0, 3 evaluations): stale; mean return -" in shown
    assert "of 1 seed; seed 0 differs from step 4 on" in shown


def test_a_number_changed_in_its_last_digit_is_within_the_interval(folder, capsys):
    change(
        folder,
        "curves.csv",
        "mean_reward",
        lambda x: float(f"{x * (1 + 3e-7):.7g}"),
        arm="rtrl",
        updates="2",
    )
    assert verified(folder) == 0
    shown = capsys.readouterr().out
    assert "rtrl (seed 0, 3 evaluations): within the interval; mean return -" in shown


def test_a_changed_final_return_is_stale_where_runs_are_whole(folder, capsys):
    change(folder, "runs.csv", "final_return", lambda x: 2 * x, arm="rtrl")
    assert verified(folder) == 0
    (folder / "study.toml").write_text(STUDY)
    assert verified(folder) == 1
    assert "seed 0 differs in its final return alone" in capsys.readouterr().out


def test_an_interrupted_verification_leaves_nothing(folder, monkeypatch, capsys):
    where = []

    def interrupted(study, runs_folder, jobs, evaluations):
        (runs_folder / "a file").write_text("")
        where.append(runs_folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "run_study", interrupted)
    before, others = files(folder), multiprocessing.active_children()
    assert verified(folder, "--report") == 130
    assert "stopped; nothing was written" in capsys.readouterr().out
    assert files(folder) == before
    assert not where[0].exists()
    assert set(multiprocessing.active_children()) == set(others)


def test_processes_of_somebody_else_are_not_waited_for(folder, other_process):
    assert verified(folder) == 0
    assert other_process.is_alive()


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_and_leaves_nothing(folder, tmp_path_factory):
    longer = STUDY.replace("total_timesteps = 12", "total_timesteps = 100_000_000")
    (folder / "study.toml").write_text(longer)
    before, empty = files(folder), tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "pes_rl.compare", "study.toml", "--verify"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(empty)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(empty.rglob("progress.csv")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("stopped; nothing was written\n")
    assert files(folder) == before
    assert not list(empty.rglob("*.csv"))


@pytest.mark.parametrize("name", ["curves.csv", "runs.csv"])
def test_missing_files_are_named_in_one_line(folder, capsys, name):
    (folder / name).unlink()
    assert verified(folder) == 2
    error = capsys.readouterr().err
    assert f"{name} is missing, with which --verify compares; run the study" in error
    assert error.count("\n") == 1


def test_results_that_are_incomplete_are_refused_before_anything_is_trained(
    folder, capsys
):
    content = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(content.replace("[0, 1]", "[7, 1]"))
    assert verified(folder) == 2
    error = capsys.readouterr().err
    assert (
        "has no results of 'PES' on unrolled:influence-balancing with seed 7" in error
    )
    (folder / "runs.csv").write_text("arm,seed\nPES,0\n")
    assert verified(folder) == 2
    assert "runs.csv holds no runs of this study: KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("{evaluations = 0}", "verify: evaluations is 0 and must be a whole number"),
        ("{seeds = true}", "verify: seeds is True and must be a whole number from 1"),
        ("{steps = 3}", "verify is {'steps': 3} and must be a table such as"),
        ("3", "verify is 3 and must be a table such as {seeds = 1}"),
    ],
)
def test_a_bad_part_is_one_line(tmp_path, part, message):
    path = tmp_path / "study.toml"
    path.write_text(f"verify = {part}\n{STUDY}")
    with pytest.raises(ValueError, match=r"study\.toml: ") as error:
        read_study(path)
    assert message in str(error.value)


def test_a_report_without_a_verification_is_refused(folder, capsys):
    assert compare.main([str(folder / "study.toml"), "--report"]) == 2
    assert "--report is of --verify" in capsys.readouterr().err


def test_the_interval_of_many_seeds_is_the_normal_one():
    """Of 4000 seeds the mean is known, so that a new run's own spread is left."""
    values = np.random.default_rng(0).normal(5.0, 2.0, 4000)
    for count in (1, 4):
        low, high = verify.prediction_interval(values.tolist(), count)
        half = norm.ppf(0.995) * 2.0 / np.sqrt(count)
        assert (high - low) / 2 == pytest.approx(half, rel=0.03)
        assert (high + low) / 2 == pytest.approx(5.0, abs=0.1)


def test_the_interval_covers_a_new_run_99_times_in_a_hundred():
    """Of five seeds: 4000 draws, the share is within 4 standard errors of 0.99."""
    draws = np.random.default_rng(1).normal(100.0, 30.0, (4000, 6))
    intervals = [verify.prediction_interval(row[:5].tolist(), 1) for row in draws]
    covered = [
        low <= row[5] <= high for (low, high), row in zip(intervals, draws, strict=True)
    ]
    assert abs(np.mean(covered) - 0.99) < 4 * np.sqrt(0.99 * 0.01 / 4000)


def outcome(seed, steps, returns):
    summary = {"env": "e", "seed": seed, "final_return": 0.0}
    steps, returns = np.array(steps, float), np.array(returns, float)
    return Outcome("a", summary, steps, steps, steps, returns)


def test_curves_of_other_steps_are_compared_where_the_new_run_is_evaluated():
    """By then the recorded seeds stood at 5 and 15: their means are 2.5 and 7.5."""
    curves = {
        ("e", "a", seed): outcome(seed, [0, 20], [0, end])
        for seed, end in enumerate([10, 30])
    }
    recorded = verify.Recorded(curves, dict.fromkeys(curves, 0.0))
    again = {("e", "a", 0): outcome(0, [0, 10], [0, 10])}
    verdict = verify.judge("e", "a", again, recorded, whole=False)
    low, high = verify.prediction_interval([2.5, 7.5], 1)
    assert verdict.verdict == "within the interval"
    assert verdict.reason == (
        f"mean return 5.0 in {low:.1f} to {high:.1f} of 2 seeds; "
        "seed 0 is evaluated at step 10, before at 20"
    )


def test_older_files_of_three_decimals_are_compared_in_these():
    steps = [0, 10]
    curves = {("e", "a", 0): outcome(0, steps, [4.367, 91.77])}
    recorded = verify.Recorded(curves, {("e", "a", 0): 0.0})
    for value, expected in ((91.76961, "same to the bit"), (91.76, "within")):
        again = {("e", "a", 0): outcome(0, steps, [4.3671234, value])}
        verdict = verify.judge("e", "a", again, recorded, whole=True)
        assert verdict.verdict.startswith(expected)


@pytest.mark.parametrize("module", [provenance, verify])
def test_the_examples_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_what_made_each_file_is_kept(tmp_path):
    older = describe_maker(["pes-rl 0.0.9 at 1234567"], {"jax": "0.1"})
    record_maker(tmp_path, ["a.csv", "b.csv"], older)
    record_maker(tmp_path, ["b.csv", "c.csv"], describe_maker(["newer"], {}))
    record_maker(tmp_path, [], describe_maker(["none"], {}))
    entries = read_makers(tmp_path)
    assert [(e["files"], e["made_by"]) for e in entries] == [
        (["a.csv"], ["pes-rl 0.0.9 at 1234567"]),
        (["b.csv", "c.csv"], ["newer"]),
    ]
    assert entries[0]["versions"] == {"jax": "0.1"}
    assert {"date", "platform", "recorded"} <= entries[0].keys()
    (tmp_path / "made.json").write_text("[3]")
    with pytest.raises(ValueError, match=r"made\.json does not say what made"):
        read_makers(tmp_path)

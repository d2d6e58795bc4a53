"""The comparison command: study in, table, CSVs and figure out."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pes_rl import compare
from pes_rl.graphics.figures import (
    Panel,
    against_mean_clock,
    common_steps,
    draw_learning_curves,
    share_reached,
)
from pes_rl.run_folder.provenance import version_and_commit
from pes_rl.run_folder.writer import RunFolder
from pes_rl.studies import runner
from pes_rl.studies.outcomes import Outcome, read_curves
from pes_rl.studies.report import (
    interquartile_mean,
    interval,
    make_table,
    write_results,
)
from pes_rl.studies.study import make_study, read_study
from pes_rl.training.metrics import COLUMNS

STUDY = """
title = "Two arms"
env = "swimmer"
total_timesteps = 80
num_pairs = 1
horizon = 20
eval_interval = 40
eval_episodes = 1
final_eval_episodes = 2
log_interval = 1

[[arm]]
name = "PES, short"
agent = "pes"
seeds = [0, 1]
truncation_length = 10

[[arm]]
name = "full ES"
agent = "es"
seeds = [0]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study" / "study.toml"
    study.parent.mkdir()
    study.write_text(STUDY)
    return study.parent


@pytest.fixture
def in_this_process(monkeypatch):
    """Studies train without the seconds that processes take to start."""
    monkeypatch.setattr(runner, "worker_pool", ThreadPoolExecutor)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_study_leaves_its_results_and_is_not_run_twice(folder, capsys, monkeypatch):
    assert compare.main([str(folder / "study.toml"), "--jobs", "2"]) == 0
    runs = read(folder / "runs.csv")
    assert [(run["arm"], run["seed"]) for run in runs] == [
        ("PES, short", "0"),
        ("PES, short", "1"),
        ("full ES", "0"),
    ]
    curves = read(folder / "curves.csv")
    assert {row["timesteps"] for row in curves if row["arm"] == "full ES"} == {
        "0",
        "40",
        "80",
    }
    for figure in ("curves.png", "wall_time.png", "reliability.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    table = (folder / "table.md").read_text()
    assert "| PES, short | 2 |" in table
    captured = capsys.readouterr()
    assert table in captured.out
    assert f"Made by {version_and_commit()}." in table
    assert "warning" not in captured.err

    made = folder.parent / "runs" / "compare"
    summaries = {path: path.stat().st_mtime_ns for path in made.rglob("summary.json")}
    assert len(summaries) == 3
    cut_off = next(path for path in summaries if "full-es" in str(path))
    content = json.loads(cut_off.read_text())
    cut_off.write_text(json.dumps({**content, "interrupted": True}))
    older = next(path.parent for path in summaries if path != cut_off) / "config.json"
    older.write_text(older.read_text().replace(version_and_commit(), "pes-rl 0.0.9"))
    # The one run that is made again: in this process.
    monkeypatch.setattr(runner, "worker_pool", ThreadPoolExecutor)
    assert compare.main([str(folder / "study.toml"), "--jobs", "1"]) == 0
    warning = capsys.readouterr().err
    assert "warning: runs made by pes-rl" in warning
    assert "pes-rl 0.0.9" in warning
    again = {path: path.stat().st_mtime_ns for path in made.rglob("summary.json")}
    assert [path for path in again if again[path] != summaries[path]] == [cut_off]
    values = ("arm", "seed", "timesteps", "mean_reward")
    assert [[row[key] for key in values] for row in read(folder / "curves.csv")] == [
        [row[key] for key in values] for row in curves
    ]


@pytest.mark.usefixtures("in_this_process")
def test_a_changed_setting_makes_a_run_again(folder):
    study = folder / "study.toml"
    runs = folder.parent / "runs"
    runner.run_study(read_study(study), runs, 1)
    study.write_text(STUDY.replace("truncation_length = 10", "truncation_length = 20"))
    changed = read_study(study)
    complete = [runner._is_complete(run, runs) for run in changed.runs]
    assert complete == [False, False, True]


@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_fails_does_not_stop_the_others(folder, capsys):
    failing = """
[[arm]]
name = "another environment"
env = "gym:NoSuchTask-v0"
agent = "es"
seeds = [0]
total_timesteps = 1000
"""
    study = folder / "study.toml"
    title, arms = STUDY.split("[[arm]]", 1)
    study.write_text(f"{title}{failing}\n[[arm]]{arms}")
    assert compare.main([str(study), "--jobs", "1"]) == 2
    captured = capsys.readouterr()
    assert "(this run failed; the others go on)" in captured.out
    assert "error: 1 of 4 runs failed, the first is another-environment" in captured.err
    assert "NoSuchTask" in captured.err
    assert not (folder / "runs.csv").exists()
    made = list((folder.parent / "runs").rglob("summary.json"))
    assert len(made) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[arm]", "cannot be read"),
        ('env = "swimmer"', "has no run"),
        ('[[arm]]\nagent = "pes"\nseeds = [1]', "needs an env and an agent"),
        (STUDY.replace("num_pairs", "num_pears"), "unknown option 'num_pears'"),
        (STUDY.replace("[0, 1]", "[1, 1]"), "stand twice"),
        (STUDY.replace('"es"', '"se"'), "unknown agent 'se'"),
        (STUDY.replace("[0, 1]", '"0..9"'), "'0..9' is no range; write \"0-49\""),
    ],
)
def test_a_bad_study_ends_in_one_line(folder, capsys, text, message):
    (folder / "study.toml").write_text(text)
    assert compare.main([str(folder / "study.toml")]) == 2
    assert message in capsys.readouterr().err


def test_runs_of_different_grids_meet_where_all_have_been():
    runs = [
        (np.array([0, 10, 30]), np.zeros(3)),
        (np.array([0, 20]), np.zeros(2)),
    ]
    assert common_steps(runs).tolist() == [0, 10, 20]


def outcome(arm, env, final, steps, seconds, threshold: float | None = 340.0):
    summary = {
        "env": env,
        "final_return": final,
        "timesteps_to_threshold": steps,
        "seconds_to_threshold": seconds,
        "threshold": threshold,
    }
    return Outcome(arm, summary, *[np.zeros(1)] * 4)


def test_the_table_says_how_many_seeds_reach_the_threshold():
    runs = [
        outcome("an arm", "swimmer", 350.0, 1000, 2.0),
        outcome("an arm", "swimmer", 330.0, 3000, 5.0),
        outcome("an arm", "swimmer", 100.0, None, None),
        outcome("one seed", "swimmer", 350.0, 1000, 2.0),
        outcome("one seed", "hopper", 9.0, None, None, None),
    ]
    table = make_table("t", runs, ["pes-rl 1", "pes-rl 2"])
    swimmer, hopper = table.split("## swimmer")[1].split("## hopper")
    assert (
        "| an arm | 3 | 260.0 (100.0 to 350.0) | 260.0 (100.0 to 350.0) "
        "| 100.0 to 350.0 | 1 (33%) | 2 | 2,000 | 3.5 |" in swimmer
    )
    assert (
        "| one seed | 1 | 350.0 (-) | 350.0 (-) | 350.0 to 350.0 | 1 (100%) | 1 "
        "| 1,000 | 2.0 |" in swimmer
    )
    assert "| one seed | 1 | 9.0 (-) | 9.0 (-) | 9.0 to 9.0 | - | 0 | - | - |" in hopper
    assert "Made by pes-rl 1 and by pes-rl 2." in hopper


def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end():
    values = np.array([[100.0, 1, 2, 3, 4, 5, 6, -50]])
    assert interquartile_mean(values).tolist() == [(2 + 3 + 4 + 5) / 4]
    assert interquartile_mean(values[0, :3]) == values[0, :3].mean()


def test_the_interval_of_a_mean_is_that_of_the_bootstrap():
    """Near the normal interval where there are many values."""
    values = np.random.default_rng(0).normal(5.0, 1.0, 400)
    low, high = map(float, interval(values, np.mean).split(" to "))
    assert low == pytest.approx(values.mean() - 1.96 / 20, abs=0.06)
    assert high == pytest.approx(values.mean() + 1.96 / 20, abs=0.06)


def test_the_share_of_seeds_that_have_reached_a_threshold():
    """One falls back afterwards and still counts, one never gets there."""
    steps = np.array([0, 10, 20])
    runs = [(steps, np.array(returns)) for returns in ([0, 5, 1], [0, 1, 5], [0, 0, 0])]
    np.testing.assert_allclose(share_reached(runs, steps, 5.0), [0, 1 / 3, 2 / 3])


def test_seeds_can_be_a_range(folder):
    study = folder / "study.toml"
    study.write_text(STUDY.replace("[0, 1]", '"3-6"'))
    seeds = [run.config.seed for run in read_study(study).runs]
    assert seeds == [3, 4, 5, 6, 0]


def test_an_arm_can_be_run_on_several_environments(folder):
    study = folder / "study.toml"
    study.write_text(STUDY.replace('"swimmer"', '["swimmer", "jax:swimmer"]'))
    runs = read_study(study).runs
    assert [run.folder_name for run in runs if run.arm == "full ES"] == [
        "swimmer-full-es-s0",
        "jax-swimmer-full-es-s0",
    ]
    assert {run.config.env for run in runs} == {"swimmer", "jax:swimmer"}


def test_each_environment_has_its_table_and_panel(tmp_path):
    study = make_study(("swimmer", "ant"), ("es",), (0, 1), {})
    for run in study.runs:
        folder = RunFolder(tmp_path / run.folder_name, COLUMNS)
        folder.write_config({"env": run.config.env}, None)
        for number in range(3):
            folder.log(
                {
                    "time/total_timesteps": 100 * number,
                    "time/iterations": number,
                    "time/time_elapsed": 2.0 * number,
                    "eval/mean_reward": 200.0 * number,
                }
            )
        keys = ("env", "agent", "seed", "total_timesteps", "threshold")
        summary = {key: getattr(run.config, key) for key in keys}
        numbers = ("final_return", "final_return_std", "best_return", "wall_seconds")
        summary |= dict.fromkeys(numbers, 400.0)
        folder.write_summary({**summary, "timesteps_to_threshold": 200})
        folder.close()
    write_results(study, tmp_path, tmp_path)
    swimmer, ant = (tmp_path / "table.md").read_text().split("## ant")
    assert "| 2 (100%) | 2 | 200 | 4.0 |" in swimmer
    assert "| - | 2 | 200 | - |" in ant  # it has no threshold
    for figure in ("curves.png", "wall_time.png", "reliability.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
    drawn_anew = read_curves(tmp_path / "curves.csv", study)
    for run, outcome in zip(study.runs, drawn_anew, strict=True):
        assert (outcome.arm, outcome.summary["env"]) == (run.arm, run.config.env)
        assert outcome.summary["threshold"] == run.config.threshold
        assert outcome.steps.tolist() == [0, 100, 200]
        assert outcome.updates.tolist() == [0, 1, 2]
        assert outcome.seconds.tolist() == [0, 2, 4]
        assert outcome.returns.tolist() == [0, 200, 400]
    assert [
        (row["env"], row["seconds_to_threshold"]) for row in read(tmp_path / "runs.csv")
    ] == 2 * [("swimmer", "4.0")] + 2 * [("ant", "")]


@pytest.mark.usefixtures("in_this_process")
def test_losses_of_an_unrolled_problem_are_drawn_over_updates_too(folder):
    study = folder / "study.toml"
    study.write_text(
        """
env = "unrolled:influence-balancing"
total_timesteps = 4
eval_interval = 2
final_eval_episodes = 1
log_interval = 1

[[arm]]
agent = "rtrl"
seeds = [0]
"""
    )
    assert compare.main([str(study), "--jobs", "1"]) == 0
    assert [row["updates"] for row in read(folder / "curves.csv")] == ["0", "2", "4"]
    assert (folder / "updates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("returns", "scale"),
    [([-8.0, -1e-9], "log"), ([-5.0, -4.0], "linear"), ([-5.0, 4.0], "linear")],
)
def test_losses_that_spread_have_a_logarithmic_axis(returns, scale, tmp_path):
    curve = np.arange(2), np.array(returns)
    panel = Panel("t", {"arm": [curve]}, None, "updates", as_losses=True)
    (axes,) = draw_learning_curves(tmp_path / "curves.png", [panel])
    assert axes.get_yscale() == scale
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), np.negative(returns))


@pytest.mark.parametrize(("longest", "scale"), [(900, "linear"), (1100, "log")])
def test_steps_that_spread_have_a_logarithmic_axis(longest, scale, tmp_path):
    curves = {
        str(end): [(np.array([0, end]), np.array([1.0, 2.0]))] for end in (100, longest)
    }
    (axes,) = draw_learning_curves(tmp_path / "curves.png", [Panel("t", curves)])
    assert axes.get_xscale() == scale


def test_time_is_the_mean_of_an_arms_runs_at_each_step():
    """The second run, which found everything compiled, took a second where the first
    took five, and was not evaluated at step 5."""
    steps, returns = np.array([0, 5, 10]), np.array([-8.0, -4.0, 0.0])
    first = (steps, np.array([4.0, 4.5, 5.0]), returns)
    second = (steps[::2], np.array([0.0, 1.0]), returns[::2])
    for clock, values in against_mean_clock([first, second]):
        assert clock.tolist() == [2, 2.5, 3]
        assert values.tolist() == [-8, -4, 0]


def test_a_run_of_one_evaluation_is_seen(tmp_path):
    panel = Panel("t", {"arm": [(np.array([0]), np.array([1.0]))]}, None)
    (axes,) = draw_learning_curves(tmp_path / "one.png", [panel])
    assert axes.lines[0].get_marker() == "o"
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(set(labels)) == len(labels)

"""The comparison command: study in, table, CSVs and figure out."""

import csv
import json

import numpy as np
import pytest

from pes_rl import compare
from pes_rl.figures import common_steps, share_reached
from pes_rl.study import read_study

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


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_study_leaves_its_results_and_is_not_run_twice(folder, capsys):
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
    for figure in ("curves.png", "reliability.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    table = (folder / "table.md").read_text()
    assert "| PES, short | 2 |" in table
    assert table in capsys.readouterr().out

    made = folder.parent / "runs" / "compare"
    summaries = {path: path.stat().st_mtime_ns for path in made.rglob("summary.json")}
    assert len(summaries) == 3
    cut_off = next(path for path in summaries if "full-es" in str(path))
    content = json.loads(cut_off.read_text())
    cut_off.write_text(json.dumps({**content, "interrupted": True}))
    assert compare.main([str(folder / "study.toml"), "--jobs", "1"]) == 0
    again = {path: path.stat().st_mtime_ns for path in made.rglob("summary.json")}
    assert [path for path in again if again[path] != summaries[path]] == [cut_off]
    assert read(folder / "curves.csv") == curves


def test_a_changed_setting_makes_a_run_again(folder):
    study = folder / "study.toml"
    runs = folder.parent / "runs"
    compare.run_study(read_study(study), runs, 1)
    study.write_text(STUDY.replace("truncation_length = 10", "truncation_length = 20"))
    changed = read_study(study)
    complete = [compare._is_complete(run, runs) for run in changed.runs]
    assert complete == [False, False, True]


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


def test_the_table_says_how_many_seeds_reach_the_threshold():
    runs = [
        {"final_return": 350.0, "timesteps_to_threshold": 1000},
        {"final_return": 330.0, "timesteps_to_threshold": 3000},
        {"final_return": 100.0, "timesteps_to_threshold": None},
    ]
    table = compare.make_table("t", {"an arm": runs, "one seed": runs[:1]}, 340.0)
    assert (
        "| an arm | 3 | 260.0 (100.0 to 350.0) | 100.0 to 350.0 | 1 | 2 | 2,000 |"
        in (table)
    )
    assert "| one seed | 1 | 350.0 (-) | 350.0 to 350.0 | 1 | 1 | 1,000 |" in table


def test_the_interval_of_a_mean_is_that_of_the_bootstrap():
    """Near the normal interval where there are many values."""
    values = np.random.default_rng(0).normal(5.0, 1.0, 400)
    low, high = map(float, compare._interval(values).split(" to "))
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

"""The study of return against wall time: what it keeps, and how it reads its rows."""

import csv
import importlib
import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "results" / "wall_clock"


@pytest.fixture(scope="module")
def study():
    """The modules of the study's folder, which are no package, by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    names = ("run", "report", "protocol", "settings")
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.fixture
def options(study, tmp_path):
    return study["run"].Options(
        arms=["ars"],
        tasks=["hopper"],
        seeds=[0, 1],
        minutes=20.0,
        cores=1,
        out=tmp_path,
        runs=tmp_path / "runs",
    )


def write(path, columns, rows):
    """Rows of seed, seconds, return and episodes."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for seed, seconds, value, episodes in rows:
            key = {"arm": "ars", "task": "hopper", "seed": seed, "minutes": "20"}
            rest = {"cores": 1, "timesteps": 1000, "evaluation_seconds": 12.0}
            last = {"seconds": seconds, "return": value, "episodes": episodes}
            writer.writerow({**key, **rest, **last})


ROWS = [
    (0, 0.0, 10.0, 5),
    (1, 0.0, 20.0, 5),
    (0, 240.0, 110.0, 5),
    (0, 1200.0, 350.0, 20),
]


def test_runs_that_were_stopped_are_dropped(study, options, tmp_path):
    curves, columns = tmp_path / "curves.csv", study["protocol"].COLUMNS
    write(curves, columns, ROWS)
    assert study["run"].keep_complete(curves, options) == {("ars", "hopper", "0")}
    with curves.open() as file:
        assert {row["seed"] for row in csv.DictReader(file)} == {"0"}


def test_runs_of_other_minutes_are_not_mixed(study, options, tmp_path):
    curves = tmp_path / "curves.csv"
    write(curves, study["protocol"].COLUMNS, ROWS)
    other = study["run"].Options(**{**vars(options), "minutes": 10.0})
    with pytest.raises(ValueError, match="minutes = 20; use --minutes 20"):
        study["run"].keep_complete(curves, other)


def test_the_table_interpolates_between_evaluations(study, tmp_path):
    curves = tmp_path / "curves.csv"
    write(curves, study["protocol"].COLUMNS, ROWS)
    study["report"].write_report(curves, tmp_path)
    text = (tmp_path / "table.md").read_text()
    # 10 + 100 * 2 / 4, and 110 + 240 * 1 / 16 and 6 / 16; 12 seconds of 1200.
    row = "| sb3-contrib's ARS | 1 | 60 | 125 | 200 | 350 | 1,000 | 1.0% |"
    assert row in text.splitlines()
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_a_run_that_ended_early_keeps_its_return(study, tmp_path):
    curves = tmp_path / "curves.csv"
    write(curves, study["protocol"].COLUMNS, [(0, 0.0, 0.0, 5), (0, 600.0, 90.0, 20)])
    (run,) = study["report"].read_tasks(curves)["hopper"]["ars"]
    minutes, returns = study["report"].curve(run)
    assert minutes.tolist() == [0.0, 10.0, 20.0]
    assert returns.tolist() == [0.0, 90.0, 90.0]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
def test_each_run_has_its_cores(study, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 3, 9})
    assert study["run"].find_places(1) == [{3}, {5}]
    assert study["run"].find_places(2) == [{3, 5}]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert study["run"].find_places(1) == [{3}]
    with pytest.raises(ValueError, match="--cores 1"):
        study["run"].find_places(2)


def test_settings_name_every_task(study):
    settings, tasks = study["settings"], set(study["protocol"].TASKS)
    for name in ("ARS", "PPO", "PPO_ENVIRONMENTS", "SAC", "SURVIVAL_BONUS"):
        assert getattr(settings, name).keys() == tasks

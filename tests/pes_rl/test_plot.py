"""Learning curves of run folders: what is found, how it is grouped, what is torn."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from pes_rl import plot
from pes_rl.config.train_config import make_config
from pes_rl.graphics.figures import draw_learning_curves
from pes_rl.run_folder.reader import read_curve
from pes_rl.run_folder.writer import RunFolder
from pes_rl.training.metrics import COLUMNS


def make_run(path, returns, env="swimmer", agent="pes", **options):
    """A run folder with an evaluation every 100 steps and 2 seconds."""
    folder = RunFolder(path, COLUMNS)
    folder.write_config(dataclasses.asdict(make_config(env, agent, **options)), None)
    for number, value in enumerate(returns):
        folder.log(
            {
                "time/total_timesteps": 100 * number,
                "time/time_elapsed": 2.0 * number,
                "eval/mean_reward": value,
            }
        )
    folder.close()
    return path


def test_runs_below_a_folder_become_one_png(tmp_path, capsys):
    for seed in (0, 1):
        make_run(tmp_path / "runs" / "a" / str(seed), [1, 2, 3 + seed], seed=seed)
    make_run(tmp_path / "runs" / "b", [1, 5], agent="es")
    make_run(tmp_path / "runs" / "empty", [])
    out = tmp_path / "figure.png"
    twice = [str(tmp_path / "runs"), str(tmp_path / "runs" / "b")]
    assert plot.main([*twice, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert f"written to {out}: 3 runs, 1 without an evaluation left out" in said
    assert plot.main([*twice, "--out", str(tmp_path / "curves")]) == 0
    assert f"written to {tmp_path / 'curves.png'}: 3 runs" in capsys.readouterr().out
    assert (tmp_path / "curves.png").exists()


def test_seeds_are_a_band_and_other_settings_an_arm(tmp_path):
    folders = [
        make_run(tmp_path / "0", [1, 2], seed=0),
        make_run(tmp_path / "1", [3, 4], seed=1),
        make_run(tmp_path / "2", [5, 6], seed=0, sigma=0.5),
        make_run(tmp_path / "3", [7, 8], env="hopper"),
    ]
    panels, drawn = plot.make_panels(folders)
    assert drawn == 4
    assert [(panel.title, panel.x_label) for panel in panels] == [
        ("swimmer", "environment steps"),
        ("swimmer", "seconds"),
        ("hopper", "environment steps"),
        ("hopper", "seconds"),
    ]
    steps, seconds = panels[0].curves, panels[1].curves
    assert {arm: len(runs) for arm, runs in steps.items()} == {
        "swimmer, pes sigma=0.3": 2,
        "swimmer, pes sigma=0.5": 1,
    }
    assert steps["swimmer, pes sigma=0.5"][0][0].tolist() == [0, 100]
    assert seconds["swimmer, pes sigma=0.5"][0][0].tolist() == [0, 2]
    assert panels[0].threshold == 340.0
    assert list(panels[2].curves) == ["hopper, pes"]


def test_the_legend_names_environment_and_agent(tmp_path):
    folders = [
        make_run(tmp_path / "0", [1, 2], seed=0),
        make_run(tmp_path / "1", [3, 4], seed=1),
        make_run(tmp_path / "2", [7, 8], env="hopper", agent="nres"),
    ]
    panels, _ = plot.make_panels(folders)
    axes = draw_learning_curves(tmp_path / "figure.png", panels, columns=2)
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["swimmer, pes (2 seeds)", "threshold", "hopper, nres (1 seed)"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_is_not_drawn(tmp_path, cut):
    path = make_run(tmp_path / "run", [1.5, 2.5, 31.25])
    log = path / "progress.csv"
    log.write_bytes(log.read_bytes()[:-cut] if cut < 30 else b"")
    curve = read_curve(path, ("eval/mean_reward",))["eval/mean_reward"]
    assert curve.tolist() == ([1.5, 2.5] if cut < 30 else [])


def test_a_resumed_run_drops_the_line_that_was_cut(tmp_path):
    path = make_run(tmp_path / "run", [1.5, 2.5, 31.25])
    log = path / "progress.csv"
    log.write_bytes(log.read_bytes()[:-25])
    folder = RunFolder(path, COLUMNS, resume_at=200)
    folder.log({"time/total_timesteps": 200, "eval/mean_reward": 7.0})
    folder.close()
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["eval/mean_reward"] for row in rows] == ["1.5", "2.5", "7.0"]
    assert all(set(row) == set(COLUMNS) for row in rows)
    log.write_bytes(log.read_bytes()[:10])  # within the header
    RunFolder(path, COLUMNS, resume_at=200).close()
    assert log.read_text().strip() == ",".join(COLUMNS)


def test_a_study_s_figures_are_drawn_anew(tmp_path, capsys):
    study = 'env = "swimmer"\n[[arm]]\nagent = "pes"\nseeds = [0]\n'
    (tmp_path / "study.toml").write_text(study)
    # As the first studies had it: neither environment nor seconds.
    rows = "arm,seed,timesteps,mean_reward\npes,0,0,1.5\npes,0,100,350\n"
    (tmp_path / "curves.csv").write_text(rows)
    assert plot.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: figures drawn anew\n"
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == ["curves.png", "reliability.png"]
    for torn in (rows[:-9], rows[:31], "arm,seed\npes,0\n"):
        (tmp_path / "curves.csv").write_text(torn)
        assert plot.main([str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "holds no curves of this study" in error and error.count("\n") == 1


def test_what_cannot_be_drawn_ends_in_one_line(tmp_path, capsys):
    assert plot.main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    path = make_run(tmp_path / "run", [])
    assert plot.main([str(path)]) == 2
    assert "has an evaluation yet" in capsys.readouterr().err
    make_run(tmp_path / "other", [1.0])
    target = str(tmp_path / "none" / "x.png")
    assert plot.main([str(tmp_path / "other"), "--out", target]) == 2
    assert "none/x.png" in capsys.readouterr().err
    (path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"config\.json: 'settings' is None"):
        plot.make_panels([make_broken(path)])


def make_broken(path):
    values = dict.fromkeys(COLUMNS, "1")
    with (path / "progress.csv").open("a", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerow(values)
    assert np.isfinite(read_curve(path, COLUMNS)["time/fps"]).all()
    return path

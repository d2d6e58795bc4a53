"""Damaged files of a run: one line says what is wrong."""

import json

import pytest

from pes_rl import evaluate, plot
from pes_rl.config.train_config import make_config
from pes_rl.run_folder.reader import read_config, read_curve, read_summary
from pes_rl.training import command

SETTINGS = {"env": "swimmer", "agent": "es", "num_pairs": 4, "sigma": 0.1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "holds a list and must hold an object"),
        ("null", "holds a NoneType and must hold an object"),
        ('"text"', "holds a str and must hold an object"),
        ('{"settings": ', "no readable config.json"),
        ("\x00\xff", "no readable config.json"),
        ("{}", "'settings' is None and must be an object"),
        ('{"settings": [1]}', r"'settings' is \[1\] and must be an object"),
        ({**SETTINGS, "momentum": 1}, "unknown setting 'momentum'.*a newer pes_rl"),
        ({"agent": "es"}, "the setting 'env' is missing"),
        ({**SETTINGS, "seed": None}, "seed=None must be a whole number"),
        ({**SETTINGS, "sigma": "high"}, "sigma='high' must be a number"),
        ({**SETTINGS, "hidden_sizes": 3}, "hidden_sizes=3 must be a list"),
        ({**SETTINGS, "env": "moon"}, "unknown environment 'moon'"),
    ],
)
def test_a_damaged_config(content, message, tmp_path, capsys):
    if isinstance(content, dict):
        content = json.dumps({"settings": content})
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)
    for main, arguments in (
        (evaluate.main, [str(tmp_path)]),
        (command.main, ["--resume", str(tmp_path)]),
    ):
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"error: {tmp_path}")
        assert shown.count("\n") == 1


def test_settings_that_an_older_version_lacked_get_their_defaults(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"settings": SETTINGS}))
    assert (
        read_config(tmp_path).weight_decay == make_config("swimmer", "es").weight_decay
    )


def test_a_summary_that_is_cut_off(tmp_path):
    (tmp_path / "summary.json").write_text('{"final_return": 3')
    with pytest.raises(ValueError, match=r"no readable summary\.json"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has no column c"),
        ("a,c\n1,x\n", "could not convert string to float: 'x'"),
    ],
)
def test_a_log_that_lacks_a_column_or_holds_text(content, message, tmp_path):
    (tmp_path / "progress.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_curve(tmp_path, ["a", "c"])


def test_plot_names_the_file(tmp_path, capsys):
    (tmp_path / "progress.csv").write_text("a,b\n1,2\n")
    assert plot.main([str(tmp_path)]) == 2
    assert "progress.csv has no column" in capsys.readouterr().err

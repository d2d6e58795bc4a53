"""The help text of training in groups, and older spellings of options."""

import re
from dataclasses import fields

import pytest

from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.runtime.command_line import respell
from pes_rl.training import command

GROUPS = {
    "run": ("env", "agent", "seed", "total-timesteps", "logdir", "resume"),
    "estimator": ("num-pairs", "truncation-length", "sigma", "stagger"),
    "optimizer": ("optimizer", "learning-rate", "weight-decay", "normalize-returns"),
    "policy": ("policy", "hidden-sizes", "normalize-observations", "clip-actions"),
    "environment": ("horizon", "env-kwargs", "backend", "vectorization"),
    "scaling": ("devices", "num-threads", "workers", "coordinator-address"),
    "evaluation-and-logs": ("eval-interval", "threshold", "log-interval"),
}


def boxes(arguments, monkeypatch, capsys):
    """The help text by group."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        command.parse([*arguments, "--help"])
    # Where the output is no terminal of UTF-8, boxes are drawn with other characters.
    parts = re.split(r"(?m)^\W{1,3}([\w-]+) options\W*$", capsys.readouterr().out)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_options_stand_in_their_groups(monkeypatch, capsys):
    shown = boxes([], monkeypatch, capsys)
    assert list(shown) == list(GROUPS)
    for group, names in GROUPS.items():
        for name in names:
            assert f" --{name} " in shown[group].replace(",", " ")
    whole = "".join(shown.values())
    for field in fields(TrainConfig):
        assert f" --{field.name.replace('_', '-')} " in whole.replace(",", " ")


def test_defaults_are_those_of_the_given_task_and_agent(monkeypatch, capsys):
    given = ["--env", "hopper", "--agent", "nres"]
    text = " ".join(boxes(given, monkeypatch, capsys)["estimator"].split())
    sigma = make_config("hopper", "nres").sigma
    assert re.search(rf"--sigma .*?\(default: {sigma}\)", text)
    assert sigma != make_config("swimmer", "pes").sigma


def test_grouped_options_are_read_as_the_settings():
    arguments = ["--env", "ant", "--sigma", "0.5", "--no-bias"]
    request = command.parse([*arguments, "--num-processes", "2"])
    assert request.config == make_config("ant", "pes", sigma=0.5, bias=False)
    assert request.resume is None
    assert request.cluster.num_processes == 2


def test_older_spellings_are_understood():
    older = {"--out": "--logdir", "--agents": "--agent"}
    given = ["STUDY", "--out=a=b", "--agents", "pes", "--outer"]
    told = ["STUDY", "--logdir=a=b", "--agent", "pes", "--outer"]
    assert respell(given, older) == told

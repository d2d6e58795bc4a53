"""All commands under one name, and one word for one thing in their options."""

import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from pes_rl.__main__ import COMMANDS, main, run

OLDER = ("--out ", "--agents", "--seeds", "--unroll", "--truncation-lengths")
STUDIES = ("surface", "bias", "variance", "cost", "memory", "scaling")


def help_of(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_overview_has_a_line_for_each_command(capsys):
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name:8}  {text}\n" in shown
    assert len(COMMANDS) == 11


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_help_text(command, capsys):
    shown = help_of([command], capsys)
    assert f"usage: python -m pes_rl.{command}" in shown
    # The modules stand where `python -m pes_rl.COMMAND` finds them.
    assert import_module(COMMANDS[command][0]).main is not None
    if command not in ("plot", "video", "export"):  # Their --out is a file.
        assert not any(older in shown for older in OLDER)


@pytest.mark.parametrize("study", STUDIES)
def test_the_studies_have_the_same_words(study, capsys):
    shown = help_of(["analyze", study], capsys)
    assert "--logdir" in shown
    assert not any(older in shown for older in OLDER)


def test_a_misspelt_command_is_told_the_nearest(capsys):
    assert main(["evalute"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'evalute'; use one of: evaluate,")


def test_the_console_script_finds_modules_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "module_of_this_folder.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pes-rl", "--help"])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert find_spec("module_of_this_folder") is None
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 0
    assert find_spec("module_of_this_folder") is not None


@pytest.mark.parametrize(("command", "seed"), [("evaluate", 2**32), ("video", -1)])
def test_a_seed_that_jax_would_cut_to_another_is_refused(command, seed, capsys):
    assert main([command, "RUN", f"--seed={seed}"]) == 2
    assert f"seed={seed} must be from 0 to 4294967295" in capsys.readouterr().err

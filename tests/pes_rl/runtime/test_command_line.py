"""The help of a command, in a terminal of 80 columns."""

from dataclasses import dataclass

import pytest

from pes_rl.runtime.command_line import read_options


@dataclass(frozen=True)
class Base:
    """Options that have something in common."""

    env: str = "swimmer"
    """What is trained on, in words that go on in a second line of the source
    text here."""


@dataclass(frozen=True)
class Options(Base):
    """Options of a command."""

    env: str = "hopper"
    seed: int = 0
    """Of all randomness."""


def test_help_fills_its_lines_and_knows_what_is_inherited(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        read_options(Options, ["--help"], "command")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    place = next(n for n, line in enumerate(lines) if "What is trained on" in line)
    text = [line.strip("│ ") for line in lines[place : place + 2]]
    assert text[0].endswith("in words that go on in a second line of the")
    assert text[1] == "source text here. (default: hopper)"


def test_options_are_read_as_before():
    assert read_options(Options, ["--seed", "3"], "command") == Options(seed=3)

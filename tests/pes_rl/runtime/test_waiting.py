"""What is waited for is said: lines in a pipe, seconds counted up on a terminal."""

import io
import re
import time

import pytest

from pes_rl.runtime.progress import Progress
from pes_rl.runtime.waiting import Elapsed, waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_a_pipe_gets_a_line_at_the_beginning_and_one_at_the_end():
    output = io.StringIO()
    with waiting("loading jax:swimmer", output=output):
        assert output.getvalue() == "loading jax:swimmer ...\n"
    assert output.getvalue().splitlines()[1:] == ["loading jax:swimmer: 0 s"]


def test_what_fails_has_no_line_at_the_end():
    output = io.StringIO()
    with pytest.raises(ValueError, match="bad"), waiting("loading", output=output):
        raise ValueError("bad")
    assert output.getvalue() == "loading ...\n"


def test_the_text_counts_up(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    elapsed = Elapsed("compiling")
    assert str(elapsed) == "compiling: 0 s"
    now += 12.3
    assert str(elapsed) == f"{elapsed}" == "compiling: 12 s"


def test_a_terminal_shows_the_seconds(terminal):
    with waiting("compiling", output=terminal):
        time.sleep(0.2)
    assert "compiling: 0 s" in terminal.getvalue()
    assert "compiling ..." not in terminal.getvalue()


def test_nothing_is_said_where_another_process_says_it():
    output = io.StringIO()
    with waiting("loading", output=output, silent=True):
        pass
    assert output.getvalue() == ""


def test_progress_says_each_wait_once():
    output = io.StringIO()
    with Progress("jax:swimmer pes", 10, "steps", output=output) as progress:
        for _ in range(2):
            with progress.waiting_once("compiling the update"):
                pass
    assert output.getvalue().splitlines() == [
        "jax:swimmer pes  compiling the update ...",
        "jax:swimmer pes  compiling the update: 0 s",
    ]


def test_a_bar_shows_the_wait_in_place_of_its_note(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("swimmer pes", 10, "steps", output=terminal) as progress:
        progress.update(1, "return 3")
        with progress.waiting_once("compiling the update"):
            time.sleep(0.3)
        terminal.truncate(0)
        time.sleep(0.3)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "return 3" in shown
    assert "compiling" not in shown

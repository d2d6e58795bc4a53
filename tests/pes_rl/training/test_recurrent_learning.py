"""The study of results/recurrent: a task that only a policy with a memory can do."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[3] / "results" / "recurrent"


@pytest.mark.slow
def test_a_gru_balances_a_pole_whose_velocities_are_hidden(monkeypatch):
    monkeypatch.syspath_prepend(STUDY)
    study = import_module("run")
    sys.modules.pop("run")
    returns = {
        name: study.train(name, seed=0)["final_return"] for name in ("linear", "gru")
    }
    assert returns["gru"] > 450
    assert returns["linear"] < 350

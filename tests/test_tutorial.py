"""The tutorial notebook runs, and does what it says; its page is made of it."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = json.loads((DOCS / "tutorial.ipynb").read_text())


def code_cells():
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in cells]


def test_the_notebook_runs_and_the_own_network_can_what_a_linear_policy_cannot(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    drawn = []

    def show():
        drawn.extend(axes for n in plt.get_fignums() for axes in plt.figure(n).axes)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    names: dict[str, Any] = {"__name__": "__main__"}
    for source in code_cells():
        exec(source, names)
    assert names["own"].summary["final_return"] > -30
    assert names["linear"].summary["final_return"] < -50
    assert names["difference"] < 1e-6
    assert "True" in capsys.readouterr().out.splitlines()[-1]
    curves, *ways = [len(axes.lines) for axes in drawn]
    assert curves == 2
    assert ways == [17, 17]  # eight boats with their starts, and the buoy


def test_saved_outputs_are_small_and_of_a_run_without_errors():
    assert (DOCS / "tutorial.ipynb").stat().st_size < 150_000
    outputs = [o for c in NOTEBOOK["cells"] for o in c.get("outputs", ())]
    assert {output["output_type"] for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    kinds = [kind for output in outputs for kind in output.get("data", ())]
    assert kinds.count("image/png") == 2
    assert "text/html" not in kinds  # progress of the runs


def test_a_page_has_the_cells_and_outputs_in_order():
    spec = importlib.util.spec_from_file_location(
        "notebooks", DOCS / "site" / "notebooks.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    picture = {"image/png": "QUJD\nRA==\n", "text/plain": ["<Figure>"]}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "2"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
                {"output_type": "display_data", "data": picture},
            ],
        },
    ]
    assert module.to_markdown({"cells": cells}).split("\n\n") == [
        "# Title\nText.",
        "```python\nprint(1)\n2\n```",
        '```text title="Output"\n1\n```',
        '```text title="Output"\n2\n```',
        "![the figure that the code draws](data:image/png;base64,QUJDRA==)",
    ]

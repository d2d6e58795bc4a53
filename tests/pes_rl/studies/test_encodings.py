"""Titles and names in any script, also where the system's encoding has no such."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

WRITE = """
import locale, sys
from pathlib import Path

import numpy as np

from pes_rl.config.train_config import make_config
from pes_rl.studies import report
from pes_rl.studies.outcomes import Outcome, read_curves
from pes_rl.studies.study import Study, StudyRun

assert locale.getencoding() == "ANSI_X3.4-1968"
name = "\\u03c3 = 0.1"
study = Study(name, (StudyRun(name, make_config("swimmer", "pes"), "run"),))
summary = dict.fromkeys(
    "env agent seed total_timesteps final_return final_return_std best_return "
    "timesteps_to_threshold seconds_to_threshold wall_seconds threshold".split()
)
summary |= {"env": "swimmer", "seed": 0, "final_return": 1.0}
two = np.arange(2.0)
report.read_outcome = lambda *_: Outcome(name, summary, two, two, two, two)
report.versions_of = lambda *_: ["pes-rl"]
report._packages_of = lambda *_: {}
report.draw_study = lambda *_: None
report.write_results(study, Path("."), Path("."))
assert Path("table.md").read_text("utf-8").startswith("# " + name)
(read,) = read_curves(Path("curves.csv"), study)
assert read.arm == name
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another name of the encoding")
def test_results_are_written_in_utf_8_as_study_files_are(tmp_path):
    """As on Windows, whose own encoding is another one."""
    ascii_alone = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    process = subprocess.run(
        [sys.executable, "-c", WRITE],
        env={**os.environ, **ascii_alone, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr

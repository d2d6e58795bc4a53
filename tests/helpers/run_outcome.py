"""What a run leaves in its folder, to be compared to the bit with another run."""

import csv
import json

import numpy as np

from pes_rl.run_folder.policy_files import load_parameters, load_policy

TIMED = ("time/time_elapsed", "time/fps", "wall_seconds", "steps_per_second")


def outcome(folder):
    """All that a run leaves but the time it took."""
    load = load_policy
    if "unrolled:" in (folder / "config.json").read_text():
        load = load_parameters
    trained = [vars(load(folder, which)) for which in ("best", "last")]
    with (folder / "progress.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())
    for row in (*log, summary):
        for column in TIMED:
            row.pop(column, None)
    arrays = {
        (number, key): value.tobytes() if isinstance(value, np.ndarray) else value
        for number, parts in enumerate(trained)
        for key, value in parts.items()
    }
    return log, summary, arrays

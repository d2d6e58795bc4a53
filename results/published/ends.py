"""Whole episodes where the schedules' paths ended: `schedule_ends.csv`, on the CPU too.

    python results/published/ends.py --data FOLDER

The maps of `run.py` are cut where its seconds ended; these few points are not.
"""

import argparse
import csv
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from run import Study
from timed import Clock, Table, play

from pes_rl.assembly.factories import make_environment
from pes_rl.run_folder.provenance import recording_maker

HERE = Path(__file__).parent
EPISODES = 2
# Of the published figure, by eye.
PUBLISHED = {"first": (0.003, 30.0), "published optimum": (10**-1.25, 10**0.5)}


def ends(objective: str) -> dict[str, tuple[float, float]]:
    """Points by name: the first, the published optimum, and each path's last."""
    points = {k: (math.log(a), math.log(b)) for k, (a, b) in PUBLISHED.items()}
    with (HERE / f"schedule_{objective}_paths.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            end = float(row["log_rate"]), float(row["log_decay"])
            points[f"end of {row['agent']}"] = end
    return points


def main() -> None:
    """Read the options and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    study = Study(parser.parse_args().data, HERE, tiny=False)
    with recording_maker(HERE):
        measure(study)


def measure(study: Study) -> None:
    """Play the episodes and write the table, row by row."""
    table, env = Table(HERE / "schedule_ends.csv"), "unrolled:lr-schedule"
    for objective in ("training-loss", "validation-accuracy"):
        options = study.options(env, "mnist", objective=objective)
        problem = make_environment(study.config(env, "pes", options), env)
        points = ends(objective)
        thetas = np.array(list(points.values()), np.float32).repeat(EPISODES, 0)
        losses, steps = play(problem, jnp.array(thetas), Clock(math.inf))
        for (name, place), row in zip(
            points.items(), losses.reshape(-1, EPISODES), strict=True
        ):
            table.add(
                [
                    {
                        "objective": objective,
                        "point": name,
                        "log10_rate": place[0] / math.log(10),
                        "log10_decay": place[1] / math.log(10),
                        "loss": float(row.mean()),
                        "difference": float(abs(row[0] - row[1])),
                        "steps": steps,
                    }
                ]
            )


if __name__ == "__main__":
    main()

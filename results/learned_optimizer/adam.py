"""Adam on a study's inner problem: the baseline for its learned optimisers.

    python results/learned_optimizer/adam.py results/learned_optimizer/fashion_mnist

trains by Adam at each rate of a grid, constant and falling as a half cosine, on
episodes of their own; then untuned, and at the best rate of each, on EPISODES others.
It writes adam_grid.csv, adam.csv and adam_curves.csv into the folder, beside the
study's results: its sums are over the same steps, networks and sizes of minibatches.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from inner_training import (
    RATES,
    TUNING_EPISODES,
    UNTUNED,
    Adam,
    Losses,
    best_rate,
    curve_rows,
    episode_rows,
    train,
    train_by_grid,
)

from pes_rl.analysis.output import Row, Table, print_table
from pes_rl.envs.registry import make
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.run_folder.provenance import recording_maker
from pes_rl.runtime.progress import Progress
from pes_rl.studies.study import read_study


def study_problem(folder: Path) -> LearnedOptimizer:
    """The inner problem of the study in the folder."""
    config = read_study(folder / "study.toml").runs[0].config
    problem: Any = make(config.env, env_kwargs=json.loads(config.env_kwargs))
    return problem


def grid_rows(losses: Losses, falls: bool) -> list[Row]:
    """Mean summed losses at each rate."""
    sums = [each.sum(-1).mean(-1) for each in (losses.training, losses.validation)]
    return [
        {
            "rate": rate,
            "falls": falls,
            "training_loss": float(training),
            "validation_loss": float(validation),
        }
        for rate, training, validation in zip(RATES, *sums, strict=True)
    ]


def main() -> None:
    """Tune and train, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=20)
    options = parser.parse_args()
    problem, folder = study_problem(options.folder), options.folder
    grid, table, curves = (
        Table(folder / f"{name}.csv") for name in ("adam_grid", "adam", "adam_curves")
    )
    chosen = [Adam(UNTUNED)]
    with recording_maker(folder), Progress("Adam", 5, "trainings") as progress:
        for falls in (False, True):
            losses = train_by_grid(problem, falls, TUNING_EPISODES)
            grid.add(*grid_rows(losses, falls))
            chosen.append(Adam(best_rate(losses), falls))
            progress.update(1 + falls, f"best: {chosen[-1]}")
        for number, adam in enumerate(chosen, 3):
            optimizer = adam.transformation(problem.horizon)
            losses = train(problem, optimizer, range(options.episodes))
            table.add(*episode_rows(losses, optimiser=str(adam)))
            curves.add(*curve_rows(losses, optimiser=str(adam)))
            note = f"{adam}: {losses.training.sum(1).mean():.1f}"
            progress.update(number, note)
    print_table(grid.rows)


if __name__ == "__main__":
    main()

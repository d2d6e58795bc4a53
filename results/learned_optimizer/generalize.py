"""Trained optimisers on tasks of at least ten times the size that they were trained on.

    python results/learned_optimizer/generalize.py --data data \
        --runs runs/compare/learned_optimizer-fashion_mnist/pes-k-50-s?

trains the networks of the held-out tasks (`TASKS`) by each run's optimiser, by Adam
tuned on the task itself, by Adam tuned on the runs' own task, and by untuned Adam, in
the same episodes. Runs whose names differ in the seed alone are one optimiser. What is
done is kept in --cache, and a command that was stopped goes on from there; delete the
cache after a change of the code. It writes generalize.csv, generalize_curves.csv,
generalize.md and generalize.png into --out.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from generalize_report import draw, write_table
from inner_training import (
    UNTUNED,
    Adam,
    Losses,
    curve_rows,
    episode_rows,
    num_weights,
    train,
    tune,
)

import pes_rl
from pes_rl.analysis.output import Table
from pes_rl.envs.registry import make
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.run_folder.provenance import recording_maker
from pes_rl.run_folder.reader import read_config
from pes_rl.runtime.progress import Progress

HERE = Path(__file__).parent
TASKS: dict[str, dict[str, Any]] = {
    "wider": {"hidden_sizes": (256,)},
    "deeper": {"hidden_sizes": (64, 64, 64, 64)},
    "whole images": {"image_size": None, "hidden_sizes": (64,)},
    "CIFAR-10": {"data": "cifar-10", "hidden_sizes": (64,)},
    "longer": {"horizon": 20_000},
}
"""What differs from the task of a run."""


def trained_problem(runs: Sequence[Path]) -> LearnedOptimizer:
    """The inner problem that the runs' optimisers were trained on.

    Raises:
        ValueError: If it is not the same for all of them.
    """
    problems: dict[str, Any] = {}
    for run in runs:
        config = read_config(run)
        if config.env_kwargs not in problems:
            options = json.loads(config.env_kwargs)
            problems[config.env_kwargs] = make(config.env, env_kwargs=options)
    if len(problems) > 1:
        raise ValueError(
            "the runs have several inner problems; name those of one study: "
            + ", ".join(problems)
        )
    return next(iter(problems.values()))


def held_out(
    problem: LearnedOptimizer, changes: dict[str, Any], data: Path
) -> LearnedOptimizer:
    """The problem with these changes, and its data from folders in `data`."""
    name = changes.get("data", problem.data)
    folder = {"fashion-mnist": "fashion_mnist", "cifar-10": "cifar_10"}.get(name)
    return replace(
        problem,
        **{**changes, "data_folder": None if folder is None else str(data / folder)},
    )


def kept(cache: Path, name: str, train_now: Callable[[], Losses]) -> Losses:
    """The losses in a file of the cache, or those of a training now, which go there."""
    path = cache / f"{name}.npz"
    if not path.exists():
        losses = train_now()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.savez(file, training=losses.training, validation=losses.validation)
        unfinished.replace(path)
    with np.load(path, allow_pickle=False) as file:
        return Losses(file["training"], file["validation"])


class Contest:
    """Trainings of one task's networks by all optimisers.

    Args:
        trained: The problem that the runs were trained on.
        problem: The task.
        runs: Folders of the runs.
        episodes: Number of networks that each optimiser trains.
        cache: Folder of the trainings that are done.
    """

    def __init__(
        self,
        trained: LearnedOptimizer,
        problem: LearnedOptimizer,
        runs: Sequence[Path],
        episodes: int,
        cache: Path,
    ) -> None:
        self._problem = problem
        self._episodes, self._cache = range(episodes), cache
        self.entries: dict[tuple[str, str], Callable[[], Losses]] = {
            (run.name.rpartition("-s")[0], run.name): lambda run=run: train(
                problem, pes_rl.load_optimizer(run), self._episodes
            )
            for run in runs
        }
        self.entries |= {
            ("Adam, tuned", ""): lambda: self._by(tune(problem)),
            ("Adam, tuned on the runs' task", ""): lambda: self._by(tune(trained)),
            ("Adam, untuned", ""): lambda: self._by(Adam(UNTUNED)),
        }

    def losses(self, optimiser: str, run: str) -> Losses:
        """The losses of one of `entries`."""
        name = run or optimiser.replace(",", "").replace("'", "").replace(" ", "-")
        return kept(self._cache, name, self.entries[optimiser, run])

    def _by(self, adam: Adam) -> Losses:
        horizon = self._problem.horizon
        return train(self._problem, adam.transformation(horizon), self._episodes)


def main() -> None:
    """Train on every task, and write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--cache", type=Path, default=Path("runs/generalize"))
    options = parser.parse_args()
    table = Table(options.out / "generalize.csv")
    curves = Table(options.out / "generalize_curves.csv")
    trained = trained_problem(options.runs)
    total = len(options.tasks) * (len(options.runs) + 3)
    with recording_maker(options.out), Progress("tasks", total, "trainings") as shown:
        done = 0
        for task in options.tasks:
            problem = held_out(trained, TASKS[task], options.data)
            cache = options.cache / options.runs[0].parent.name / task.replace(" ", "-")
            contest = Contest(trained, problem, options.runs, options.episodes, cache)
            size = {
                "weights": num_weights(problem) / num_weights(trained),
                "steps": problem.horizon / trained.horizon,
            }
            for optimiser, run in contest.entries:
                losses = contest.losses(optimiser, run)
                names = {"task": task, "optimiser": optimiser, "run": run}
                rows = episode_rows(losses, **names, **size)
                table.add(*rows)
                curves.add(*curve_rows(losses, **names))
                done += 1
                mean = np.mean([row["training_loss"] for row in rows])
                shown.update(done, f"{task}, {run or optimiser}: {mean:.1f}")
    write_table(options.out / "generalize.md", table.rows)
    draw(options.out / "generalize.png", curves.rows)


if __name__ == "__main__":
    main()

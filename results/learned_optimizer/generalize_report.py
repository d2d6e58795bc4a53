"""Table and figure of `generalize.py`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pes_rl.analysis.output import Row, new_figure


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Means and ranges over seeds, as a table in Markdown.

    A seed of a learned optimiser is one of its runs, whose episodes are averaged; a
    seed of Adam is an episode.
    """
    header = [
        "task",
        "weights, steps (times those of training)",
        "optimiser",
        "seeds",
        "summed training loss: mean (range)",
        "validation loss of the last tenth: mean (range)",
    ]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for (task, optimiser), group in by_names(rows, "task", "optimiser").items():
        seeds = list(by_names(group, "run").values())
        if len(seeds) == 1:  # Adam
            seeds = [[row] for row in group]
        columns = [
            f"{group[0]['weights']:.1f}, {group[0]['steps']:.0f}",
            optimiser,
            str(len(seeds)),
            *(_mean_and_range(seeds, name) for name in _SHOWN),
        ]
        lines.append(f"| {' | '.join([task, *columns])} |")
    path.write_text("\n".join(lines) + "\n", "utf-8")


_SHOWN = {"training_loss": ".1f", "last_validation_loss": ".3f"}


def _mean_and_range(seeds: Sequence[Sequence[Row]], name: str) -> str:
    means = [np.mean([row[name] for row in seed]) for seed in seeds]
    values = (np.mean(means), min(means), max(means))
    mean, low, high = (format(float(value), _SHOWN[name]) for value in values)
    return f"{mean} ({low} to {high})"


def by_names(rows: Sequence[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    """The rows by what stands in these columns, in order of appearance."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Training losses above and validation losses below, a column for each task."""
    tasks = by_names(rows, "task")
    figure = new_figure(3.4 * len(tasks), 6)
    grid = figure.subplots(2, len(tasks), squeeze=False)
    for column, ((task,), of_task) in enumerate(tasks.items()):
        for (optimiser,), group in by_names(of_task, "optimiser").items():
            runs = list(by_names(group, "run").values())
            steps = [row["step"] for row in runs[0]]
            for axes, name in zip(grid[:, column], _DRAWN, strict=True):
                losses = np.array([[row[name] for row in run] for run in runs])
                (line,) = axes.plot(steps, losses.mean(0), label=optimiser)
                axes.fill_between(
                    steps,
                    losses.min(0),
                    losses.max(0),
                    color=line.get_color(),
                    alpha=0.2,
                )
                axes.set_yscale("log")
                axes.set_ylabel(_DRAWN[name])
        grid[0, column].set_title(task)
        grid[1, column].set_xlabel("inner steps")
    named = grid[0, 0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=2)
    figure.savefig(path)


_DRAWN = {"training_loss": "training loss", "validation_loss": "validation loss"}

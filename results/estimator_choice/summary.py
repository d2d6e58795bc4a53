"""One table and one figure over the tasks of results/estimator_choice.

    python results/estimator_choice/summary.py

reads runs.csv of each task and writes summary.csv, summary.md and summary.png: each
estimator's mean final return, its ratio to the best estimator's, and how sure it is
that this ratio is at least 0.95.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pes_rl.analysis.output import Row, write_csv
from pes_rl.run_folder.provenance import recording_maker

HERE = Path(__file__).parent
TASKS = {
    "swimmer": "Swimmer",
    "halfcheetah": "HalfCheetah",
    "hopper": "Hopper",
    "inverted_double_pendulum": "InvertedDoublePendulum",
    "walker2d": "Walker2d",
}
CLOSE = 0.95
"""Share of the best mean from which an estimator counts as good as it."""
RESAMPLES = 10_000
_INTERVAL = "mean", "low", "high"

Returns = Mapping[str, np.ndarray]
"""Final returns of each arm's seeds."""


def read_returns(path: Path) -> Returns:
    """Final returns in a study's runs.csv, by arm."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        arm: np.array([float(r["final_return"]) for r in rows if r["arm"] == arm])
        for arm in dict.fromkeys(row["arm"] for row in rows)
    }


def task_rows(task: str, returns: Returns) -> list[Row]:
    """A row an arm, with 95 % intervals by the percentile bootstrap over its seeds.

    - ratio: its mean over the highest mean;
    - close: share of the bootstrap's resamples, of all arms, in which that ratio is at
      least 0.95.
    """
    random = np.random.default_rng(0)
    drawn = np.array(
        [random.choice(r, (RESAMPLES, len(r))).mean(1) for r in returns.values()]
    )
    means = np.array([r.mean() for r in returns.values()])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=1)
    close = (drawn >= CLOSE * drawn.max(0)).mean(1)
    return [
        {
            "task": task,
            "arm": arm,
            "seeds": len(seeds),
            "mean": round(float(means[i]), 1),
            "low": round(float(low[i]), 1),
            "high": round(float(high[i]), 1),
            "lowest": round(float(seeds.min()), 1),
            "highest": round(float(seeds.max()), 1),
            "ratio": round(float(means[i] / means.max()), 3),
            "close": round(float(close[i]), 3),
            "is_best": int(i == means.argmax()),
        }
        for i, (arm, seeds) in enumerate(returns.items())
    ]


def make_table(rows: Sequence[Row]) -> str:
    """Markdown: estimators down, tasks across, the highest mean of each in bold."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    cells = {(row["task"], row["arm"]): row for row in rows}
    head = ["estimator", *(TASKS[task] for task in tasks), "close to the best on"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm in arms:
        of_arm = [cells[task, arm] for task in tasks]
        close = sum(float(row["ratio"]) >= CLOSE for row in of_arm)
        texts = [arm, *map(_cell, of_arm), f"{close} of {len(tasks)}"]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    digits = 0 if abs(float(row["high"])) >= 1000 else 1
    mean, low, high = (
        f"{float(row[key]):.{digits}f}" for key in ("mean", "low", "high")
    )
    mean = f"**{mean}**" if row["is_best"] else mean
    return f"{mean} ({low} to {high}); {row['close']:.2f}"


def draw(path: Path, rows: Sequence[Row]) -> Figure:
    """A panel a task: mean and interval against lambda, the others as lines."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(3.4 * len(tasks), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for number, task in enumerate(tasks, 1):
        axes = figure.add_subplot(1, len(tasks), number)
        _draw_task(axes, TASKS[task], [row for row in rows if row["task"] == task])
    figure.axes[0].set_ylabel("mean final return")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path)
    return figure


def _draw_task(axes: Axes, title: str, rows: Sequence[Row]) -> None:
    for color, critic in enumerate((False, True)):
        dial = [
            row
            for row in rows
            if "lambda" in row["arm"] and ("critic" in row["arm"]) == critic
        ]
        dial.sort(key=_trace_decay)
        means, lows, highs = (
            np.array([float(row[key]) for row in dial]) for key in _INTERVAL
        )
        ends = (means - lows, highs - means)
        places = np.arange(len(dial)) + 0.08 * color
        label = "PES with a critic" if critic else "PES"
        style = {"fmt": "o-", "capsize": 3, "color": f"C{color}", "label": label}
        axes.errorbar(places, means, ends, **style)
        if dial:
            axes.set_xticks(places, [f"{_trace_decay(row):g}" for row in dial])
    others = [row for row in rows if "lambda" not in row["arm"]]
    for color, row in enumerate(others, 2):
        axes.axhline(float(row["mean"]), color=f"C{color}", label=row["arm"])
        ends = float(row["low"]), float(row["high"])
        axes.axhspan(*ends, color=f"C{color}", alpha=0.12, linewidth=0)
    axes.set_xlabel("lambda")
    axes.set_title(title)


def _trace_decay(row: Row) -> float:
    """Lambda of an arm such as "PES, lambda 0.5, critic"."""
    return float(row["arm"].partition("lambda ")[2].partition(",")[0])


def main() -> None:
    """Write the table and the figure of the tasks that have results."""
    rows: list[Row] = []
    for task in TASKS:
        if (path := HERE / task / "runs.csv").exists():
            rows += task_rows(task, read_returns(path))
    with recording_maker(HERE):
        write_csv(HERE / "summary.csv", rows)
    table = make_table(rows)
    (HERE / "summary.md").write_text(table, encoding="utf-8")
    draw(HERE / "summary.png", rows)
    print(table)


if __name__ == "__main__":
    main()

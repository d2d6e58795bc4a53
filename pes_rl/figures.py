"""Figures of learning curves and of how surely they rise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""Environment steps and evaluation returns of one run, of equal length."""


def draw_learning_curves(
    path: Path,
    curves: Mapping[str, Sequence[Curve]],
    title: str,
    threshold: float | None = None,
) -> None:
    """Draw return against environment steps, a line and a band an arm, to a PNG.

    The line is the mean over seeds and the band reaches from the lowest to the highest
    seed, of more than 20 seeds from the 10th percentile to the 90th. Runs of one arm
    are read off at the steps that all of them cover, by linear interpolation.

    Args:
        path: The PNG file.
        curves: The runs of each arm, by the arm's name.
        title: What is shown.
        threshold: A return to mark, if any.
    """
    figure = Figure(figsize=(8, 5.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, runs in curves.items():
        steps = common_steps(runs)
        returns = np.array([np.interp(steps, *run) for run in runs])
        (line,) = axes.plot(steps, returns.mean(0), label=f"{name} ({len(runs)} seeds)")
        ends = (0.1, 0.9) if len(runs) > 20 else (0.0, 1.0)
        low, high = np.quantile(returns, ends, axis=0)
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
    if threshold is not None:
        axes.axhline(threshold, color="gray", linestyle="--", linewidth=1)
    axes.set_title(title)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("evaluation return")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path)


def draw_reliability(
    path: Path, curves: Mapping[str, Sequence[Curve]], title: str, threshold: float
) -> None:
    """Draw the share of seeds that have reached a threshold against steps, to a PNG.

    A seed counts from its first evaluation at the threshold or above.

    Args:
        path: The PNG file.
        curves: The runs of each arm, by the arm's name.
        title: What is shown.
        threshold: The return to reach.
    """
    figure = Figure(figsize=(8, 5.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Of many arms the second half is dashed: two agents at the same settings compare.
    colors = len(curves) if len(curves) <= 5 else -(-len(curves) // 2)
    for number, (name, runs) in enumerate(curves.items()):
        steps = common_steps(runs)
        axes.step(
            steps,
            100 * share_reached(runs, steps, threshold),
            where="post",
            linestyle="-" if number < colors else "--",
            color=f"C{number % colors}",
            label=name,
        )
    axes.set_title(title)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(f"% of seeds that have reached {threshold:g}")
    axes.set_ylim(0, 102)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path)


def share_reached(
    runs: Sequence[Curve], steps: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of the runs that have had an evaluation at the threshold by each step."""
    first = [
        min(run_steps[returns >= threshold], default=np.inf)
        for run_steps, returns in runs
    ]
    return np.mean(np.array(first)[:, None] <= steps, axis=0)


def common_steps(runs: Sequence[Curve]) -> np.ndarray:
    """Steps at which any of the runs was evaluated, up to where the shortest ends."""
    every = np.unique(np.concatenate([steps for steps, _ in runs]))
    return every[every <= min(steps[-1] for steps, _ in runs)]

"""Figures: learning curves, reliability over seeds, speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

Curve = tuple[np.ndarray, np.ndarray]
"""Environment steps (or seconds) and evaluation returns of one run, of equal length."""


@dataclass(frozen=True)
class Panel:
    """The content of one panel of a figure.

    Attributes:
        title: Heading.
        curves: The runs of each arm, by the arm's name.
        threshold: A return to mark, if any.
        x_label: What the curves are drawn against.
        as_losses: Draw minus the returns, the losses of an unrolled problem.
    """

    title: str
    curves: Mapping[str, Sequence[Curve]]
    threshold: float | None = None
    x_label: str = "environment steps"
    as_losses: bool = False

    @property
    def sign(self) -> int:
        """Sign of the drawn quantity relative to the return."""
        return -1 if self.as_losses else 1

    @property
    def quantity(self) -> str:
        """Name of the drawn quantity."""
        return "loss" if self.as_losses else "return"


def draw_learning_curves(
    path: Path, panels: Sequence[Panel], columns: int = 1
) -> list[Axes]:
    """Draw return against environment steps to a PNG: one line and band per arm.

    The line is the mean over seeds and the band reaches from the lowest to the highest
    seed, of more than 20 seeds from the 10th percentile to the 90th. Runs of one arm
    are read off at the steps that all of them cover, by linear interpolation. Losses
    that spread over more than a power of ten have a logarithmic axis, and so have steps
    if the shortest arm has less than a tenth of the longest's.

    Args:
        path: The PNG file.
        panels: The panels, row by row; an arm has one colour in all of them.
        columns: Panels beside each other.

    Returns:
        The axes of each panel.
    """
    figure, grid = _figure(len(panels), columns)
    styles = _styles(panels)
    lines = {}
    for axes, panel in zip(grid, panels, strict=True):
        for name, runs in panel.curves.items():
            drawn = [(steps, panel.sign * returns) for steps, returns in runs]
            color, linestyle = styles[name]
            line = _draw_band(axes, drawn, color, _labelled(name, panels))
            line.set_linestyle(linestyle)
            lines[name] = line
        if panel.threshold is not None:
            level = panel.sign * panel.threshold
            lines[""] = axes.axhline(level, color="gray", linestyle=":", linewidth=1)
            lines[""].set_label("threshold")
        if _wants_logarithmic_axis(panel):
            axes.set_yscale("log")
        _label_axes(axes, panel, "loss" if panel.as_losses else "evaluation return")
    _add_legend(figure, list(lines.values()))
    figure.savefig(path)
    return grid


def draw_reliability(path: Path, panels: Sequence[Panel], columns: int = 1) -> None:
    """Draw the share of seeds that reached the threshold against steps to a PNG.

    A seed counts from its first evaluation at the threshold or above.

    Args:
        path: The PNG file.
        panels: The panels, row by row; each has a threshold.
        columns: Panels beside each other.
    """
    figure, grid = _figure(len(panels), columns)
    styles = _styles(panels)
    lines = {}
    for axes, panel in zip(grid, panels, strict=True):
        assert panel.threshold is not None
        for name, runs in panel.curves.items():
            color, linestyle = styles[name]
            steps = common_steps(runs)
            share = share_reached(runs, steps, panel.threshold)
            (lines[name],) = axes.step(
                steps,
                100 * share,
                where="post",
                linestyle=linestyle,
                color=color,
                label=_labelled(name, panels),
            )
        axes.set_ylim(0, 102)
        goal = f"{panel.quantity} of {panel.sign * panel.threshold:g}"
        _label_axes(axes, panel, f"% of seeds that have reached a {goal}")
    _add_legend(figure, list(lines.values()))
    figure.savefig(path)


def draw_bars(path: Path, values: Mapping[str, float], title: str, label: str) -> None:
    """Draw a horizontal bar for each name, the first on top, to a PNG."""
    figure, (axes,) = _figure(1, 1)
    bars = axes.barh(list(values), list(values.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    figure.savefig(path)


def draw_speeds(path: Path, speeds: Mapping[str, Mapping[int, float]]) -> None:
    """Draw steps a second against particles to a PNG: one line per engine.

    Args:
        path: The PNG file.
        speeds: Steps a second at each number of particles, by the engine's name.
    """
    figure, (axes,) = _figure(1, 1)
    for engine, at in speeds.items():
        axes.loglog(list(at), list(at.values()), marker="o", label=engine)
    sizes = sorted({size for at in speeds.values() for size in at})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("particles")
    axes.set_ylabel("environment steps a second")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path)


def share_reached(
    runs: Sequence[Curve], steps: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of the runs that reached the threshold in an evaluation by each step."""
    first = [
        min(run_steps[returns >= threshold], default=np.inf)
        for run_steps, returns in runs
    ]
    return np.mean(np.array(first)[:, None] <= steps, axis=0)


def against_mean_clock(
    runs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> list[Curve]:
    """Runs of one arm against their mean time, at the steps that all of them cover.

    Times of runs differ, and the first of a process compiles for those after it: at one
    time one run would be at its end and another at its start.

    Args:
        runs: Steps, times and returns of each.
    """
    steps = common_steps([(steps, returns) for steps, _, returns in runs])
    clock = np.mean([np.interp(steps, at, time) for at, time, _ in runs], axis=0)
    return [(clock, np.interp(steps, at, returns)) for at, _, returns in runs]


def common_steps(runs: Sequence[Curve]) -> np.ndarray:
    """Steps at which any of the runs was evaluated, where all of them have values."""
    every = np.unique(np.concatenate([steps for steps, _ in runs]))
    begin = max(steps[0] for steps, _ in runs)
    end = min(steps[-1] for steps, _ in runs)
    return every[(every >= begin) & (every <= end)]


def _figure(panels: int, columns: int) -> tuple[Figure, list[Axes]]:
    rows = -(-panels // columns)
    size = (8 if columns == 1 else 6 * columns, 5.4 if rows == 1 else 4.2 * rows + 0.6)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def _draw_band(axes: Axes, runs: Sequence[Curve], color: str, label: str) -> Line2D:
    steps = common_steps(runs)
    returns = np.array([np.interp(steps, *run) for run in runs])
    # A line through one point would not be seen.
    marker = "o" if len(steps) == 1 else None
    (line,) = axes.plot(steps, returns.mean(0), color=color, label=label, marker=marker)
    ends = (0.1, 0.9) if len(runs) > 20 else (0.0, 1.0)
    low, high = np.quantile(returns, ends, axis=0)
    axes.fill_between(steps, low, high, color=color, alpha=0.15)
    return line


def _styles(panels: Sequence[Panel]) -> dict[str, tuple[str, Literal["-", "--"]]]:
    """Colour and line style of each arm, the same in all figures of a study.

    Of many arms the second half is dashed: two agents at the same settings compare.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colors = len(names) if len(names) <= 5 else -(-len(names) // 2)
    return {
        name: (f"C{number % colors}", "-" if number < colors else "--")
        for number, name in enumerate(names)
    }


def _labelled(name: str, panels: Sequence[Panel]) -> str:
    """Name of each arm with its number of seeds in each panel."""
    counts = {len(panel.curves[name]) for panel in panels if name in panel.curves}
    seeds = " or ".join(map(str, sorted(counts)))
    return f"{name} ({seeds} seed{'' if counts == {1} else 's'})"


def _add_legend(figure: Figure, lines: Sequence[Line2D]) -> None:
    """Add a legend, in two columns where the figure is wide enough."""
    letters_beside = 5 * figure.get_figwidth()  # at some 10 letters an inch
    longest = max((len(str(line.get_label())) for line in lines), default=0)
    ncols = 2 if longest < letters_beside else 1
    figure.legend(handles=list(lines), loc="outside lower center", ncols=ncols)


def _wants_logarithmic_axis(panel: Panel) -> bool:
    runs = [run for arm in panel.curves.values() for run in arm]
    values = panel.sign * np.concatenate([returns for _, returns in runs])
    positive = values[values > 0]
    return (
        panel.as_losses
        and values.min() >= 0
        and positive.size > 0
        and positive.max() > 10 * positive.min()
    )


def _label_axes(axes: Axes, panel: Panel, y_label: str) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(y_label)
    ends = [max(run[0].max() for run in runs) for runs in panel.curves.values()]
    if 0 < 10 * min(ends) < max(ends):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(
            MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
        )
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.grid(alpha=0.3)

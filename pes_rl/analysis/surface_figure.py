"""The maps of `surface`, with the paths on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pes_rl.analysis.output import Row, new_figure


@dataclass(frozen=True)
class Path2D:
    """Path of a training run: rows [3] of updates so far and theta."""

    agent: str
    seed: int
    points: np.ndarray

    def rows(self) -> list[Row]:
        """Rows of paths.csv."""
        names = {"agent": self.agent, "seed": self.seed}
        return [
            {**names, "update": int(update), "first": float(a), "second": float(b)}
            for update, a, b in self.points
        ]


def draw_surface(
    file: Path,
    maps: dict[str, np.ndarray],
    axes: Sequence[np.ndarray],
    names: Sequence[str],
    label: str,
    paths: Sequence[Path2D],
) -> None:
    """Draw the maps beside each other, in one scale, to a PNG.

    A cross marks the lowest point of each map, a white dot where the paths begin and a
    coloured one where each ends. Values above 95% of the first map's have one colour.

    Args:
        file: The PNG.
        maps: Values at the points of the grid, by title. # shape=(first, second)
        axes: Values of each parameter.
        names: Of the two parameters.
        label: What the values are.
        paths: The paths, by agent.
    """
    figure = new_figure(11, 5.4)
    raw = next(iter(maps.values()))
    low, high = np.quantile(raw[np.isfinite(raw)], [0.0, 0.95])
    agents = list(dict.fromkeys(path.agent for path in paths))
    for place, (title, values) in enumerate(maps.items(), start=1):
        panel = figure.add_subplot(1, len(maps), place)
        mesh = panel.pcolormesh(*axes, values.T, vmin=low, vmax=high, rasterized=True)
        figure.colorbar(mesh, ax=panel, label=label, extend="max")
        for path in paths:
            color = f"C{agents.index(path.agent) + 1}"
            panel.plot(*path.points[:, 1:].T, color=color, label=path.agent)
            for point, inside in ((0, "white"), (-1, color)):
                at = path.points[point, 1:]
                panel.plot(*at, "o", color=inside, markeredgecolor="white")
        i, j = np.unravel_index(np.nanargmin(values), values.shape)
        cross = {"color": "white", "markersize": 9, "markeredgewidth": 2}
        panel.plot(axes[0][i], axes[1][j], "x", **cross, label="lowest point")
        panel.set(title=title, xlabel=names[0], ylabel=names[1])
        panel.set_xlim(axes[0][0], axes[0][-1])
        panel.set_ylim(axes[1][0], axes[1][-1])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    each = dict(zip(labels, handles, strict=True))  # an agent's runs have one line
    figure.legend(
        list(each.values()),
        list(each),
        loc="outside lower center",
        ncols=len(each),
        facecolor="lightgray",
    )
    figure.savefig(file)

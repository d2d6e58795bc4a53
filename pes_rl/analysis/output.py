"""Tables and figures of the studies."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = dict[str, Any]


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no screen, in inches."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Table:
    """A table that is written to a CSV file after each `add`.

    An interruption therefore loses no row.

    Args:
        path: The file, which is not touched before the first row; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.rows: list[Row] = []

    def add(self, *rows: Row) -> None:
        """Add rows and write the file."""
        self.rows += rows
        write_csv(self._path, self.rows)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same columns, floats to six digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _as_text(v) for k, v in row.items()} for row in rows)


def print_table(rows: Sequence[Row]) -> None:
    """Print rows of the same columns, aligned."""
    lines = [list(rows[0]), *([_as_text(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.rjust, line, widths)))


def _as_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

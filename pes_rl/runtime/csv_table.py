"""CSV files: rows as mappings from column to value, under a fixed header."""

import csv
import errno
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a whole CSV file.

    Args:
        path: The file.
        columns: The header.
        rows: Values by column; a column that a row lacks stays empty.

    Raises:
        ValueError: If a row has a column that the header has not.
        OSError: If the file cannot be written.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_cells(row, columns) for row in rows)


def _cells(row: Row, columns: Sequence[str]) -> list[Any]:
    unknown = sorted(row.keys() - set(columns))
    if unknown:
        raise ValueError(
            f"a row has the columns {', '.join(unknown)}, which are not in the header; "
            "add them to the columns"
        )
    return [row.get(column, "") for column in columns]


class CsvLog:
    """A CSV file that grows by a row at a time, each written whole or not at all.

    Args:
        path: The file; made if missing.
        columns: The header. The first column is a whole number that grows, such as the
            environment steps.
        keep_until: Keep the rows of an existing file up to this value of the first
            column, and drop the later ones; None appends to what is there.

    Raises:
        ValueError: If the existing file has other columns than a log of these.
        OSError: If the file cannot be written; so does `append`.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], keep_until: int | None = None
    ) -> None:
        self._path, self._columns = path, columns
        if keep_until is not None and path.exists():
            _keep_rows(path, columns, keep_until)
        self._file = path.open("ab", buffering=0)
        if self._file.tell() == 0:
            self._write_line(columns)

    def append(self, row: Row) -> None:
        """Write a row.

        Raises:
            ValueError: If it has a column that the header has not.
            OSError: If it cannot be written; the next one may be.
        """
        self._write_line(_cells(row, self._columns))

    def last(self, value: int) -> dict[str, str]:
        """Cells of the last row if its first column holds this value; else empty.

        Raises:
            OSError: If the file cannot be read.
        """
        rows = list(csv.DictReader(whole_lines(self._path)))
        return rows[-1] if rows and rows[-1][self._columns[0]] == str(value) else {}

    def drop_from(self, value: int) -> None:
        """Remove the rows whose first column holds this value or a larger one.

        Raises:
            OSError: If the file cannot be written.
        """
        self._file.close()
        try:
            _keep_rows(self._path, self._columns, value - 1)
        finally:
            self._file = self._path.open("ab", buffering=0)

    def _write_line(self, cells: Sequence[Any]) -> None:
        line = io.StringIO()
        csv.writer(line).writerow(cells)
        data = line.getvalue().encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._file.truncate(end)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _keep_rows(path: Path, columns: Sequence[str], keep_until: int) -> None:
    """Rewrite the file with the rows up to `keep_until`, under today's header."""
    rows = list(csv.DictReader(whole_lines(path)))
    try:
        kept = [row for row in rows if int(row[columns[0]]) <= keep_until]
        lines = [columns, *(_cells(row, columns) for row in kept)]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not the log of a run of this version ({error}); move it away "
            "to continue the run with a new log"
        ) from error
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    os.replace(unfinished, path)


def whole_lines(path: Path) -> list[str]:
    """The lines of a CSV file without those that a kill or a full disk has cut short.

    A line is whole if it ends in a line break and has as many commas as the header; no
    field of ours contains a comma.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [line for line in lines if line.count(",") == lines[0].count(",")]

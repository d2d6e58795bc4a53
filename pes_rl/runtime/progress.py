"""Progress display: a bar on a terminal, plain lines in a pipe or file."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress as RichProgress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from pes_rl.runtime.output import tolerant
from pes_rl.runtime.waiting import Elapsed


class Progress:
    """Display of a count that grows to a total, with a note such as the return.

    Output that fails, on a full disk for example, is dropped.

    On a terminal it is one bar; elsewhere each update prints a line.

    Args:
        label: Name of the task.
        total: The last value of the count.
        unit: Unit of the count.
        silent: Show nothing.
        output: Where it is printed; None takes standard output.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        silent: bool = False,
        output: IO[str] | None = None,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._console = Console(
            file=tolerant(output),
            highlight=False,
            markup=False,
            emoji=False,  # :swimmer: is one.
            soft_wrap=True,
            quiet=silent,
        )
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
            TimeRemainingColumn(
                elapsed_when_finished=True, table_column=Column(min_width=7)
            ),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, note="")
        self._waited: set[str] = set()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, completed: int, note: str) -> None:
        """Show that `completed` of the total are done."""
        self._bar.update(self._task, completed=completed, note=note)
        if not self._console.is_terminal:
            line = f"{self._label}  {completed:,}/{self._total:,} {self._unit}  {note}"
            self._console.print(line)

    @contextmanager
    def waiting_once(self, what: str) -> Iterator[None]:
        """Say what is waited for, unless it was waited for before.

        On a terminal the seconds are counted up in place of the note; elsewhere it is a
        line at the beginning and one with the seconds at the end.
        """
        if what in self._waited:
            yield
            return
        self._waited.add(what)
        elapsed = Elapsed(what)
        if self._console.is_terminal:
            note = self._bar.tasks[0].fields["note"]
            self._bar.update(self._task, note=elapsed)
            try:
                yield
            finally:
                self._bar.update(self._task, note=note)
            return
        self.say(f"{self._label}  {what} ...")
        yield
        self.say(f"{self._label}  {elapsed}")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(message)

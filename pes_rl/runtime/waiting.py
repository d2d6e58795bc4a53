"""What a command waits for, and for how long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.text import Text

from pes_rl.runtime.output import tolerant


class Elapsed:
    """What is waited for and how many seconds it took so far, as text.

    The text is new each time it is shown, so it counts up in a display that refreshes.

    Args:
        what: What is waited for.
    """

    def __init__(self, what: str) -> None:
        self._what, self._start = what, time.perf_counter()

    def __str__(self) -> str:
        return f"{self._what}: {time.perf_counter() - self._start:.0f} s"

    def __rich__(self) -> Text:
        return Text(str(self))


@contextmanager
def waiting(
    what: str, *, output: IO[str] | None = None, silent: bool = False
) -> Iterator[None]:
    """Say what is waited for while the body of the `with` statement runs.

    On a terminal the seconds are counted up and vanish at the end; elsewhere it is a
    line at the beginning and one with the seconds at the end.

    Args:
        what: Such as "compiling the update".
        output: Where it is printed; None takes standard output.
        silent: Print nothing.

    Example:
        >>> with waiting("loading swimmer"):  # doctest: +SKIP
        ...     environment = make_environment()
        loading swimmer ...
        loading swimmer: 2 s
    """
    console = Console(
        file=tolerant(output),
        highlight=False,
        markup=False,
        emoji=False,  # :swimmer: is one.
        quiet=silent,
    )
    elapsed = Elapsed(what)
    if console.is_terminal and not silent:
        with console.status(elapsed):
            yield
        return
    console.print(f"{what} ...", soft_wrap=True)
    yield
    console.print(str(elapsed), soft_wrap=True)

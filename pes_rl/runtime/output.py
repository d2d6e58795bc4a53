"""Output that may fail: a full disk or a closed pipe never ends a run."""

import contextlib
import os
import sys
from typing import IO, cast

_FAILURES = (OSError, ValueError, RuntimeError)
"""ValueError: the stream is closed. RuntimeError: a signal handler writes while the
main thread waits in a write to the same stream (a "reentrant call")."""


class TolerantOutput:
    """A text stream that drops what the stream behind it cannot take.

    Args:
        stream: Where text goes; None takes standard output at each call.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    @property
    def _behind(self) -> IO[str]:
        return sys.stdout if self._stream is None else self._stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        with contextlib.suppress(*_FAILURES):
            self._behind.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if it can be flushed."""
        with contextlib.suppress(*_FAILURES):
            self._behind.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._behind.isatty()

    def fileno(self) -> int:
        """File descriptor of the stream."""
        return self._behind.fileno()

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return getattr(self._behind, "encoding", "utf-8")


def tolerant(stream: IO[str] | None = None) -> IO[str]:
    """A `TolerantOutput`, as a text stream for libraries that want one."""
    return cast(IO[str], TolerantOutput(stream))


def print_line(text: str, *, error: bool = False) -> None:
    """Print a line to standard output, or standard error, if that is possible."""
    print(text, file=tolerant(sys.stderr if error else None), flush=True)


def flush_or_drop() -> None:
    """Flush standard output and error; what cannot be written is dropped.

    Python would otherwise try once more at its exit, and fail with status 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)

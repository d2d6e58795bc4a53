"""Ctrl-C while a command imports its modules: one line and status 130.

This module is the first that a command imports, and imports nothing heavy itself.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


def handle_early_interrupts() -> None:
    """End this process at once on Ctrl-C, if it was started as a command of `pes_rl`.

    A `KeyboardInterrupt` would not do: libraries drop those that are raised while they
    are imported, or turn them into other errors. `allow_interrupts` ends it.
    """
    if _is_command():
        _end_at_once()


def allow_interrupts() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again; there is something to clean up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at once on Ctrl-C meanwhile: for imports, with nothing to save.

    In a thread, or where the caller handles SIGINT already, it changes nothing.
    """
    _end_at_once()
    try:
        yield
    finally:
        allow_interrupts()


def _is_command() -> bool:
    if not sys.argv:
        return False
    if sys.argv[0] == "-m":  # Python is looking for the module that it was given.
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return module.split(".")[0] == "pes_rl"
    return os.path.basename(sys.argv[0]).removesuffix(".exe") == "pes-rl"


def _end_at_once() -> None:
    is_main = threading.current_thread() is threading.main_thread()
    # A job in the background of a shell ignores SIGINT, and must go on doing so.
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(1, b"stopped before anything began\n")
    # The import of glfw, by MuJoCo, starts a process, which would print a traceback.
    children = f"/proc/self/task/{os.getpid()}/children"  # Linux has it.
    with contextlib.suppress(OSError), open(children) as file:
        for pid in file.read().split():
            os.kill(int(pid), signal.SIGKILL)
    os._exit(128 + number)

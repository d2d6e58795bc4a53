"""How a command starts and ends: options from a dataclass, errors, exit status."""

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import docstring_parser
import tyro

from pes_rl.runtime.compilation_cache import enable_compilation_cache
from pes_rl.runtime.early_interrupt import allow_interrupts
from pes_rl.runtime.output import flush_or_drop, print_line

T = TypeVar("T")


def read_options(
    kind: type[T],
    arguments: Sequence[str] | None,
    command: str,
    *,
    older: Mapping[str, str] | None = None,
    **settings: Any,
) -> T:
    """The options of `python -m pes_rl.COMMAND`; ends the process for --help.

    Args:
        kind: Dataclass of the options.
        arguments: Command-line arguments; None takes those of the process.
        command: Name of the command.
        older: Older spellings of options that are still understood; see `respell`.
        settings: Other arguments of `tyro.cli`.
    """
    wrap_help_texts(kind)
    given = respell(sys.argv[1:] if arguments is None else arguments, older or {})
    return tyro.cli(kind, args=given, prog=f"python -m pes_rl.{command}", **settings)


def respell(arguments: Sequence[str], older: Mapping[str, str]) -> list[str]:
    """The arguments with each option's older spelling replaced by today's.

    Example:
        >>> respell(["--out=results", "--jobs", "2"], {"--out": "--logdir"})
        ['--logdir=results', '--jobs', '2']
    """
    parts = [argument.partition("=") for argument in arguments]
    return ["".join((older.get(name, name), *rest)) for name, *rest in parts]


def run_command(
    body: Callable[[], int | None],
    on_interruption: Callable[[], str] = lambda: "stopped",
    *,
    compilation_cache: bool = True,
) -> int:
    """Run the body of a command and turn what it raises into an exit status.

    | what the body does | what is printed | status |
    |---|---|---|
    | returns | | what it returned, 0 for None |
    | raises ValueError or OSError: the user can mend it | one `error:` line | 2 |
    | lacks memory, also for an import | one `error:` line | 2 |
    | is interrupted by Ctrl-C | `on_interruption()` | 130 |
    | is terminated by SIGTERM | `on_interruption()` | 143 |
    | raises anything else | the traceback, and what to do | 1 |

    Args:
        body: Everything that the command does after its options are read.
        on_interruption: The line for Ctrl-C, which says how to continue or what is
            already written.
        compilation_cache: Use the user's compilation cache; a command that measures
            what compiling takes does not.

    Returns:
        The exit status.
    """
    _handle_sigterm()
    if compilation_cache:
        enable_compilation_cache()
    try:
        allow_interrupts()
        return body() or 0
    except _Terminated:
        print_line(on_interruption())
        return 128 + signal.SIGTERM
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print_line(on_interruption())
        return 130
    except Exception as error:
        if (lack := _lack_of_memory(error)) is not None:
            reason = str(lack).strip().split("\n")[0]
            what = "" if lack is error else f"{error}: "
            line = f"error: {what}there is not enough memory ({reason})"
            print(line, file=sys.stderr)
            return 2
        traceback.print_exception(error)
        print(_REPORT, file=sys.stderr)
        return 1


def _lack_of_memory(error: BaseException | None) -> BaseException | None:
    """What in the chain of this error and its causes is a lack of memory, if any is."""
    while error is not None:
        # The second is the dynamic loader's, in an ImportError, the third XLA's.
        texts = ("failed to map segment", "RESOURCE_EXHAUSTED")
        if isinstance(error, MemoryError) or any(text in str(error) for text in texts):
            return error
        error = error.__cause__
    return None


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


def _handle_sigterm() -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, handle)


_REPORT = (
    "error: this was not expected; please report it to the developers of pes_rl, with "
    "the lines above and the command"
)


def finish(status: int) -> NoReturn:
    """End the process with a command's exit status.

    After Ctrl-C (130) or SIGTERM (143) Python is not shut down as usual: XLA may
    still be computing, in threads that crash when the interpreter is gone.
    """
    if status in (130, 143):
        atexit._run_exitfuncs()  # These release processes and clusters.
        flush_or_drop()
        os._exit(status)
    flush_or_drop()
    sys.exit(status)


@cache
def wrap_help_texts(kind: type) -> None:
    """Let the help text of each option fill its lines.

    tyro keeps the line breaks of indented docstrings, so that lines come out ragged; a
    help text given as an annotation is wrapped to the terminal's width.
    """
    texts = {
        option.arg_name: " ".join((option.description or "").split())
        for base in reversed(kind.__mro__[:-1])
        for option in docstring_parser.parse_from_object(base).params
    }
    hints = get_type_hints(kind, include_extras=True)
    kind.__annotations__ = {
        name: Annotated[hint, tyro.conf.arg(help=texts[name])]
        if texts.get(name)
        else hint
        for name, hint in hints.items()
    }

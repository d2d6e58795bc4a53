"""How a command begins and ends: options from a dataclass, and exit status."""

import atexit
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import docstring_parser
import tyro

T = TypeVar("T")


def read_options(
    kind: type[T], arguments: Sequence[str] | None, command: str, **settings: Any
) -> T:
    """The options of `python -m pes_rl.COMMAND`; ends the process for --help.

    Args:
        kind: Dataclass of the options.
        arguments: None takes those of the process.
        command: Name of the command.
        settings: Others of `tyro.cli`'s.
    """
    let_help_flow(kind)
    return tyro.cli(
        kind, args=arguments, prog=f"python -m pes_rl.{command}", **settings
    )


def finish(status: int) -> NoReturn:
    """End the process with a command's exit status.

    After Ctrl-C (130) without taking Python down in good order: XLA may still be at
    work, in threads that crash when their interpreter goes.
    """
    if status != 130:
        sys.exit(status)
    atexit._run_exitfuncs()  # Processes and clusters are let go there.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@cache
def let_help_flow(kind: type) -> None:
    """Let the help on each option fill its lines.

    tyro breaks it where the docstring's lines break, because these are indented. What
    it is given in so many words it leaves to flow.
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

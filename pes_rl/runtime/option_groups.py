"""Options of a command in groups, each a box of its own in the help text."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, make_dataclass
from inspect import cleandoc
from typing import Any, TypeVar, get_type_hints

import tyro

from pes_rl.runtime.command_line import read_options, wrap_help_texts

T = TypeVar("T")


def read_grouped_options(
    default: T, begins: Mapping[str, str], arguments: Sequence[str], command: str
) -> T:
    """The options of a command as `read_options`, with the help text in groups.

    Args:
        default: Dataclass of the options, with the defaults that the help text shows.
            The first lines of its docstring are the description of the command.
        begins: Name of the group that begins with each of these fields, in the order of
            the fields. A name may be there twice: that group then has both ranges. The
            groups are shown in the order in which their names come first.
        arguments: Command-line arguments.
        command: Name of the command.
    """
    kind: Any = type(default)
    wrap_help_texts(kind)
    hints, values = get_type_hints(kind, include_extras=True), asdict(default)  # type: ignore
    members: dict[str, list[str]] = {}
    group = ""
    for field in fields(kind):
        group = begins.get(field.name, group)
        members.setdefault(group, []).append(field.name)
    groups = {}
    for group, names in members.items():
        part: Any = make_dataclass(group, [(name, hints[name]) for name in names])
        part.__doc__ = ""  # tyro would show the signature.
        groups[group] = part(**{name: values[name] for name in names})
    whole: Any = make_dataclass("Options", [(g, type(d)) for g, d in groups.items()])
    parsed: Any = read_options(
        whole,
        arguments,
        command,
        default=whole(**groups),
        description=cleandoc(kind.__doc__),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    chosen = {k: v for part in vars(parsed).values() for k, v in vars(part).items()}
    return kind(**chosen)

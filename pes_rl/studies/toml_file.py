"""Reading and checking the TOML files of studies and of sweep spaces.

Every error is a `ValueError` of one line that names the file, the field, what it holds
and what it should hold.
"""

import math
import re
import reprlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_SEEDS = 100_000
"""Seeds of an arm or a space at most; more is a slip of the keyboard."""


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """The content of the file, in which all numbers are finite and of 64 bits.

    Args:
        path: The file.
        kind: What it is, in one word, for errors.

    Raises:
        ValueError: If it cannot be read, or holds another number.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{kind} {path} cannot be read: {error}") from error
    _check_numbers(path, content)
    return content


def _check_numbers(path: Path, content: dict[str, Any]) -> None:
    # A list of what is left: keys with many dots nest deeper than Python calls.
    left: list[tuple[str, Any]] = list(content.items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{name}.{key}", part) for key, part in value.items()]
        elif isinstance(value, list):
            left += [(name, part) for part in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise wrong(path, name, value, "a finite number")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise wrong(path, name, value, "a whole number of 64 bits")


def read_seeds(where: Path | str, seeds: Any) -> Sequence[int]:
    """The seeds: those of a list, or of a range as text such as "0-49".

    Raises:
        ValueError: If there are others than whole numbers from 0, or too many.
    """
    if isinstance(seeds, str):
        ends = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", seeds)
        if ends is None:
            raise ValueError(
                f'{where}: seeds={reprlib.repr(seeds)} is no range; write "0-49", or a '
                "list"
            )
        seeds = range(int(ends[1]), int(ends[2]) + 1)
        if not seeds:
            raise ValueError(
                f"{where}: seeds={ends[0]!r} has its first seed above its last; write "
                f'"{ends[2]}-{ends[1]}"'
            )
    elif not isinstance(seeds, list):
        raise wrong(where, "seeds", seeds, 'a list of whole numbers, or "0-49"')
    if len(seeds) > MAX_SEEDS:
        raise ValueError(
            f"{where}: seeds has {len(seeds):,} seeds and must have {MAX_SEEDS:,} at "
            "most"
        )
    for seed in seeds:
        if type(seed) is not int or seed < 0:
            raise wrong(where, "seeds", seeds, "a list of whole numbers from 0")
    return seeds


def refuse_seed(where: Path | str, settings: dict[str, Any]) -> None:
    """Raise `ValueError` for a setting `seed`, in the place of which `seeds` stands."""
    if "seed" in settings:
        seed = reprlib.repr(settings["seed"])
        raise ValueError(f"{where}: seed is {seed}; write seeds = [{seed}] instead")


def check_text(where: Path | str, name: str, value: Any) -> str:
    """The value, if it is a text.

    Raises:
        ValueError: If it is none, or is empty.
    """
    if not isinstance(value, str) or not value:
        raise wrong(where, name, value, "a text")
    return value


def wrong(where: Path | str, name: str, value: Any, expected: str) -> ValueError:
    """The error of a field that holds something else than it should."""
    return ValueError(
        f"{where}: {one_line(name)} is {reprlib.repr(value)} and must be {expected}"
    )


def one_line(name: str) -> str:
    """The name as text of one line: TOML allows every character in it."""
    return name if name.isprintable() else repr(name)

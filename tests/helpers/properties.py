"""What the property-based tests share: bounded settings, values of any kind, TOML."""

import datetime
import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings, strategies as st


def bounded(examples: int) -> settings:
    """The same examples in each run, and no files left behind."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        # It is a limit on time, which a busy machine exceeds.
        suppress_health_check=[HealthCheck.too_slow],
    )


# TOML holds neither surrogates nor a bare DEL.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=12)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**31, 2**64, 1e308])
SCALARS = st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2)
    ),
    max_leaves=5,
)
"""Everything that TOML holds but dates, and None is not in it."""

DATES = st.just(datetime.date(1979, 5, 27))


def as_toml(value: Any) -> str:
    """The value in TOML; tables are written inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        pairs = (f"{as_toml(name)} = {as_toml(part)}" for name, part in value.items())
        return f"{{{', '.join(pairs)}}}"
    return value.isoformat() if isinstance(value, datetime.date) else repr(value)


def as_file(content: dict[str, Any]) -> str:
    """A TOML file of these fields."""
    return "".join(f"{as_toml(n)} = {as_toml(v)}\n" for n, v in content.items())


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The file after one to three damages: bits, bytes, cuts, copies."""
    for _ in range(random.integers(1, 4)):
        if not content:
            break
        at, other = sorted(random.integers(0, len(content), 2))
        other = min(other, at + 40)
        few = random.bytes(int(random.integers(1, 5)))
        flipped = bytes([content[at] ^ (1 << int(random.integers(8)))])
        middle, skipped = [
            (flipped, at + 1),
            (few, at + len(few)),
            (few, at),
            (b"", other),
            (content[at:other], at),
            (_WORDS[random.integers(len(_WORDS))], other),
            (b"", len(content)),
        ][random.choice(7, p=[0.25, 0.15, 0.1, 0.15, 0.15, 0.15, 0.05])]
        content = content[:at] + middle + content[skipped:]
    return content


_WORDS = [b"nan", b"-inf", b"null", b"[]", b"{}", b"1e999", b"-1", b'"', b"\n", b"\0"]

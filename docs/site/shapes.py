"""Griffe extension: shapes in docstrings (`# shape=(N, D)`) are shown as code."""

import re
from typing import Any

import griffe


class Shapes(griffe.Extension):
    """Rewrites docstrings, in which Markdown would take `#` for a heading."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"# (shape=.*|[A-Z] particles)$",
                r"`\1`",
                obj.docstring.value,
                flags=re.MULTILINE,
            )

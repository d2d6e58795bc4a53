"""Jupyter notebooks as Markdown: cells, and the outputs that are saved with them."""

from typing import Any

OUTPUT = 'text title="Output"'


def to_markdown(notebook: dict[str, Any]) -> str:
    """The page of a notebook in format 4; pictures are part of the text."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell))


def _parts(cell: dict[str, Any]) -> list[str]:
    source = _text(cell["source"])
    if cell["cell_type"] != "code":
        return [source]
    outputs = map(_output, cell["outputs"])
    return [_fenced(source, "python"), *(output for output in outputs if output)]


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _fenced(_text(output["text"]), OUTPUT)
    data = output["data"]
    if "image/png" in data:
        picture = "".join(_text(data["image/png"]).split())
        return f"![the figure that the code draws](data:image/png;base64,{picture})"
    return _fenced(_text(data["text/plain"]), OUTPUT)


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)

"""What an installed package says of itself: no text of it names a file of the checkout.

Docstrings are left out where nobody but a reader of the source sees them; help texts,
which are docstrings of options, are not.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("envs", "agents", "pes_rl")
# A wheel has neither these folders nor, under these names, the floors.
CHECKOUT = re.compile(
    r"\b(docs|tests|results|examples|envs|agents|pes_rl)/[\w/]*\w\.\w+"
)


def shown_texts(tree):
    """String constants that can be shown, with their lines."""
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            is_options = isinstance(node, ast.ClassDef) and "Options" in node.name
            if isinstance(first, ast.Expr) and not is_options:
                hidden.add(first.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in hidden:
            yield node.lineno, str(node.value)


def named_files(tree):
    return [
        f"line {line}: {match.group()}"
        for line, text in shown_texts(tree)
        for match in CHECKOUT.finditer(text)
    ]


@pytest.mark.parametrize("floor", FLOORS)
def test_no_text_names_a_file_of_the_checkout(floor):
    paths = [path for path in (ROOT / floor).rglob("*.py") if not path.is_symlink()]
    assert len(paths) > 10
    found = {path: named_files(ast.parse(path.read_text())) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


PLANTED = '''
"""See docs/hidden.md."""
class Options:
    """Made by results/shown.py."""
    field: int = 0
    """As agents/pes.py says."""
    def method(self):
        """See tests/hidden.py."""
        raise ValueError(f"{self}: see docs/error.md")
'''


def test_what_is_planted_is_found():
    """So that the test above can fail."""
    names = [text.split(": ")[1] for text in named_files(ast.parse(PLANTED))]
    assert sorted(names) == ["agents/pes.py", "docs/error.md", "results/shown.py"]

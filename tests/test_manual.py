"""The manual: nothing is left out of it, and what it names is there."""

import ast
import re
from pathlib import Path

import pytest

from pes_rl.agents import AGENT_NAMES
from pes_rl.run_folder.writer import OTHER_TAGS
from pes_rl.training.metrics import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def read(name):
    return (ROOT / "docs" / name).read_text()


def test_every_tag_is_explained():
    page = read("tensorboard.md")
    explained = set(re.findall(r"`(\w+/\w+)`", page))
    assert {*COLUMNS, *OTHER_TAGS} - explained == set()
    known = {tag.partition("/")[0] for tag in (*COLUMNS, *OTHER_TAGS)}
    invented = {tag for tag in explained if tag.partition("/")[0] in known}
    assert invented - {*COLUMNS, *OTHER_TAGS} == set()


@pytest.mark.parametrize("agent", AGENT_NAMES)
def test_every_agent_has_a_page(agent):
    page = read(f"algorithms/{agent.replace('-', '_')}.md")
    assert f"`--agent {agent}`" in page
    assert f"[`{agent}`]" in read("algorithms/index.md")


def test_every_study_is_in_the_table_of_results():
    page = read("results.md")
    studies = {path.parent.name for path in (ROOT / "results").glob("*/README.md")}
    assert len(studies) > 10
    assert {
        name for name in studies if f"(../results/{name}/README.md)" not in page
    } == (set())


def test_every_page_is_in_the_navigation():
    listed = (ROOT / "mkdocs.yml").read_text()
    names = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES}
    assert {name for name in names if f" {name}\n" not in listed} == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_names_is_there(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (path.parent / link).exists(), link
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        tree = ast.parse((ROOT / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name in names, f"{file}::{name}"
    for module in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        assert is_defined(module), module


def is_defined(dotted):
    """Whether a module, or a name at the top of one, is in the checkout."""
    parts = dotted.removeprefix("pes_rl.").split(".")
    floor = ROOT if parts[0] in ("agents", "envs") else ROOT / "pes_rl"
    if (floor / Path(*parts)).with_suffix(".py").exists():
        return True
    tree = ast.parse((floor / Path(*parts[:-1])).with_suffix(".py").read_text())
    return parts[-1] in {getattr(node, "name", None) for node in tree.body}

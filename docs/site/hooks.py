"""Hooks of MkDocs: files outside docs/, and notebooks, become pages of the manual.

In the repository a page of the manual links to `../results/swimmer/README.md`, which
works where the repository is browsed. On the site the same files lie beside the pages.
"""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebooks import to_markdown

ROOT = Path(__file__).parents[2]
FOLDERS = ("results", "examples")
SINGLE = ("CHANGELOG.md", "CONTRIBUTING.md")
SUFFIXES = {".csv", ".gif", ".md", ".png", ".py", ".sh", ".toml"}
_FOLDERS = tuple(f"{name}/" for name in FOLDERS)
_OUTSIDE = "|".join((*_FOLDERS, *map(re.escape, SINGLE)))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the studies' pages, figures and data, the examples, notebooks as pages."""
    for path in sorted(Path(config.docs_dir).glob("*.ipynb")):
        page = to_markdown(json.loads(path.read_text()))
        files.append(File.generated(config, f"{path.stem}.md", content=page))
    paths = [path for name in FOLDERS for path in sorted((ROOT / name).rglob("*"))]
    for path in [*paths, *(ROOT / name for name in SINGLE)]:
        if path.is_file() and path.suffix in SUFFIXES:
            name = path.relative_to(ROOT).as_posix()
            files.append(
                File(name, str(ROOT), config.site_dir, config.use_directory_urls)
            )
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between docs/ and the other folders into links on the site."""
    if page.file.src_uri.startswith(_FOLDERS) or page.file.src_uri in SINGLE:
        return re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown)
    # A notebook is linked to as the file that it is in the repository.
    markdown = re.sub(r"\]\((\w+)\.ipynb\)(?!\{)", r"](\1.md)", markdown)
    # One level up from docs/ is the repository, and on the site the page's own level.
    return re.sub(rf"\]\(((?:\.\./)*)\.\./({_OUTSIDE})", r"](\1\2", markdown)

"""The part of the metadata that is computed: the README as a package index shows it.

A relative link leads nowhere there. With `Repository` under [project.urls] each becomes
an absolute one, of the version's tag. Without, its text remains, and pictures go.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
_RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def readme_for_index(text: str, repository: str | None, version: str) -> str:
    """The README with absolute links, in the form of GitHub's addresses."""

    def replace(link: re.Match[str]) -> str:
        picture, label, path = link.groups()
        if repository is None:
            return "" if picture else label
        view = "raw" if picture else "blob"
        return f"{picture}[{label}]({repository.rstrip('/')}/{view}/v{version}/{path})"

    return _RELATIVE.sub(replace, text)


def _long_description() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    source = (ROOT / "pes_rl" / "_version.py").read_text()
    version = re.findall(r'__version__ = "(.+)"', source)[0]
    repository = project.get("urls", {}).get("Repository")
    return readme_for_index((ROOT / "README.md").read_text(), repository, version)


if __name__ == "__main__":
    setup(
        long_description=_long_description(),
        long_description_content_type="text/markdown",
    )

"""The distribution: what is installed, and what is not."""

import ast
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import pes_rl
import pes_rl.agents
import pes_rl.envs

ROOT = Path(__file__).parents[1]


def _settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_folder_is_listed():
    found = {
        ".".join(("pes_rl", *folder.relative_to(ROOT).parts)).replace(
            "pes_rl.pes_rl", "pes_rl"
        )
        for top in ("pes_rl", "agents", "envs")
        for init in (ROOT / top).rglob("__init__.py")
        if (folder := init.parent).resolve() == folder
    }
    assert found == set(_settings()["packages"])


def test_links_lead_to_the_top_level_folders():
    for name in ("agents", "envs"):
        link = ROOT / "pes_rl" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name


def test_bare_names_are_never_imported():
    code = (
        "import sys, pes_rl.train, pes_rl.compare, pes_rl.bench;"
        "assert 'agents' not in sys.modules and 'envs' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "package", [pes_rl, pes_rl.agents, pes_rl.envs], ids=["front", "agents", "envs"]
)
def test_every_name_that_a_type_checker_sees_is_there(package):
    """They are imported when asked for, by the stub that it reads."""
    if (stub := Path(package.__file__).with_suffix(".pyi")).exists():
        imports = ast.parse(stub.read_text()).body
    else:
        tree = ast.parse(Path(package.__file__).read_text())
        (condition,) = (node for node in tree.body if isinstance(node, ast.If))
        imports = condition.body
    imports = [node for node in imports if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imports for alias in node.names]
    assert len(names) >= 5
    for name in names:
        assert getattr(getattr(package, name), "__name__", name) == name
    with pytest.raises(AttributeError, match="Pse"):
        package.Pse  # noqa: B018


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Folder of a source distribution, and of the wheel from it and nothing else."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(distributions):
    (path,) = distributions.glob("*.whl")
    return path


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_source_distribution_is_whole(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    # Files of the checkout alone, and the links, which are folders in the archive.
    left_out = (".", "pes_rl/agents", "pes_rl/envs")
    missing = {name for name in tracked if not name.startswith(left_out)} - names
    assert missing == set()


def test_the_metadata_is_what_an_index_accepts(distributions):
    pytest.importorskip("twine")
    files = [str(path) for path in distributions.iterdir()]
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    subprocess.run(check, check=True)


def readme_for_index(*arguments):
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.readme_for_index(*arguments)


def test_links_of_the_readme_are_absolute_where_an_index_shows_it():
    text = "![a b](results/a.png) [c](docs/c.md#d) [e](https://e.org/f) [g](#h)"
    repository = "https://github.com/someone/pes_rl"
    assert readme_for_index(text, repository, "1.2") == (
        f"![a b]({repository}/raw/v1.2/results/a.png) "
        f"[c]({repository}/blob/v1.2/docs/c.md#d) [e](https://e.org/f) [g](#h)"
    )
    assert readme_for_index(text, None, "1.2") == " c [e](https://e.org/f) [g](#h)"
    readme = (ROOT / "README.md").read_text()
    assert "](docs/" in readme and "![" in readme
    shown = readme_for_index(readme, repository, "1.2")
    links = re.findall(r"\]\(([^)]+)\)", shown)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_index_shows_the_readme_without_relative_links(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        member = next(name for name in archive.getnames() if name.endswith("PKG-INFO"))
        file = archive.extractfile(member)
        assert file is not None
        headers, _, shown = file.read().decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in headers
    assert shown.startswith("# pes_rl\n")
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls")
    repository = (urls or {}).get("Repository")
    readme = (ROOT / "README.md").read_text()
    assert (
        shown.strip()
        == readme_for_index(readme, repository, pes_rl.__version__).strip()
    )


def test_the_readme_can_be_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {pes_rl.__version__}\n" in text


def test_wheel_trains_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, *install, str(wheel)], check=True)
    installed = {path.name for path in site.iterdir() if "-" not in path.name}
    assert installed - {"bin"} == {"pes_rl"}
    where = "import pes_rl.agents as a, pes_rl.envs as e; print(a.__file__, e.__file__)"
    run = {"cwd": tmp_path, "env": {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}}
    shown = subprocess.run(
        [sys.executable, "-c", where], check=True, capture_output=True, text=True, **run
    )
    assert shown.stdout.count(str(site)) == 2
    train = "-m pes_rl.train --total-timesteps 40 --horizon 20 --num-pairs 1"
    train += " --truncation-length 10 --eval-episodes 1 --final-eval-episodes 1"
    subprocess.run(
        [sys.executable, *train.split(), "--logdir", "run"], check=True, **run
    )
    assert (tmp_path / "run" / "summary.json").exists()

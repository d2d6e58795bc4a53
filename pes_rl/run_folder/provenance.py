"""What made a table of results: commit, versions, date and machine, in `made.json`."""

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pes_rl._version import __version__

FILE = "made.json"
"""Name of the file that says what made the CSV files beside it."""
_PACKAGES = ("jax", "jaxlib", "optax", "mujoco", "brax", "gymnasium", "numpy")


def version_and_commit() -> str:
    """Version of this package and, where it is a git checkout, its commit."""
    checkout = Path(__file__).parents[2]
    shown = f"pes-rl {__version__}"
    if not (checkout / ".git").exists():
        return shown
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(
            describe, cwd=checkout, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or not its owner
        return shown
    return f"{shown} at {commit.replace('-dirty', ' with changes')}"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        **packages,
        "pes-rl": __version__,
    }


def describe_maker(
    made_by: Sequence[str], versions: Mapping[str, str]
) -> dict[str, Any]:
    """What makes results today on this machine, as an entry of `made.json`.

    Args:
        made_by: Versions and commits of pes_rl, as `version_and_commit` gives them.
        versions: Versions of packages by name.
    """
    return {
        "made_by": list(made_by),
        "versions": dict(versions),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "platform": f"{platform.system()}, {_processor()}, {os.cpu_count()} CPUs",
        "recorded": "when it was made",
    }


def _processor() -> str:
    """The processor's name: the last bits of results depend on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def record_maker(folder: Path, files: Iterable[str], maker: Mapping[str, Any]) -> None:
    """Write into the folder's `made.json` what made some of its files.

    What it says about other files stays.

    Args:
        folder: Folder of the files.
        files: Their names.
        maker: See `describe_maker`.

    Raises:
        ValueError: If the folder's `made.json` is not such a file.
    """
    new = sorted(files)
    if not new:
        return
    entries: list[dict[str, Any]] = []
    for entry in read_makers(folder):
        left = [name for name in entry["files"] if name not in new]
        if left:
            entries.append({**entry, "files": left})
    entries.append({"files": new, **maker})
    (folder / FILE).write_text(json.dumps(entries, indent=2) + "\n")


@contextlib.contextmanager
def recording_maker(folder: Path) -> Iterator[None]:
    """Write into the folder's `made.json` what made the CSV files that the body writes.

    Those of a body that fails or is interrupted count too.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with recording_maker(folder):
        ...     _ = (folder / "runs.csv").write_text("seed,final_return")
        >>> [entry["files"] for entry in read_makers(folder)]
        [['runs.csv']]
    """
    # The commit before: afterwards the results themselves may be changes to it.
    maker = describe_maker([version_and_commit()], package_versions())
    before = _times_of_tables(folder)
    try:
        yield
    finally:
        after = _times_of_tables(folder)
        written = [name for name, time in after.items() if before.get(name) != time]
        record_maker(folder, written, maker)


def _times_of_tables(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.csv")}


def read_makers(folder: Path) -> list[dict[str, Any]]:
    """The entries of the folder's `made.json`; none where there is no such file.

    Raises:
        ValueError: If it is not such a file.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text())
        for entry in entries:
            _ = [str(name) for name in [*entry["files"], *entry["made_by"]]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} does not say what made the results beside it ({error!r}); move it "
            "away to have it written anew"
        ) from error
    return entries

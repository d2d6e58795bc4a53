"""Share trained policies: `python -m pes_rl.hub push RUN USER/NAME`."""

# pyright: reportMissingImports=false

import json
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import tyro

from pes_rl.exporting.model_card import make_card
from pes_rl.run_folder.reader import read_config, read_summary
from pes_rl.runtime.command_line import finish, read_options, run_command

_FILES = (
    *("config.json", "summary.json", "progress.csv"),
    *("policy/best.npz", "policy/last.npz"),
    *("export/*.onnx", "export/*.npz", "video/*.mp4", "video/*.gif"),
)
"""What is shared of a run, as patterns; checkpoints and event files are not."""


@dataclass(frozen=True)
class HubOptions:
    """Push the policy of a run to the Hugging Face hub, or pull one from there.

    push RUN PLACE uploads settings, log, summary, policies, exported files, films and a
    model card. pull PLACE FOLDER downloads them to a folder that pes_rl.evaluate,
    pes_rl.video and pes_rl.load_policy read. A place is USER/NAME on the hub (pip
    install 'pes-rl[hub]'; hf auth login) or a folder, written as a path: ./NAME or
    /NAME.
    """

    action: tyro.conf.Positional[Literal["push", "pull"]]
    """Upload or download."""
    source: tyro.conf.Positional[str]
    """The run's folder to push; the place to pull from."""
    target: tyro.conf.Positional[str]
    """The place to push to; the folder to pull into, which must not exist."""
    private: bool = False
    """Make a new repository on the hub private."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(HubOptions, arguments, "hub")
    return run_command(lambda: _share(options))


def _share(options: HubOptions) -> None:
    if options.action == "push":
        print(push(Path(options.source), options.target, private=options.private))
    else:
        print(pull(options.source, Path(options.target)))


def push(run: Path, place: str, *, private: bool = False) -> str:
    """Share the policy of a run.

    Args:
        run: Folder of a run that has ended.
        place: USER/NAME on the hub, or a path of a folder.
        private: Whether a new repository is private.

    Returns:
        The repository's address, or the folder.

    Raises:
        ValueError: If the run cannot be read, or the hub refuses it.
    """
    _check_installed()
    config, summary = read_config(run), read_summary(run)
    made = json.loads((run / "config.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        _copy(run, copy)
        films = [path for path in sorted(copy.glob("video/*")) if path.suffix == ".gif"]
        film = films[0].relative_to(copy).as_posix() if films else None
        card = make_card(config, summary, made, place, film)
        (copy / "README.md").write_text(card, "utf-8")
        if _is_folder(place):
            target = Path(place).expanduser()
            shutil.copytree(copy, target, dirs_exist_ok=True)
            return str(target)
        return _upload(copy, place, private)


def _upload(folder: Path, repository: str, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        hub = HfApi()
        url = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise _hub_error(repository, error) from error
    return str(url)


def pull(place: str, folder: Path) -> Path:
    """Download a shared policy.

    Args:
        place: USER/NAME on the hub, or a path of a folder.
        folder: Made; a run folder without checkpoints.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder exists, or the place holds no policy.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists; name a new folder")
    if _is_folder(place):
        source = Path(place).expanduser()
        read_config(source)  # Says what is missing where it is no run.
        _copy(source, folder)
        return folder
    _check_installed()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(place, local_dir=folder, allow_patterns=list(_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise _hub_error(place, error) from error
    read_config(folder)
    return folder


def _copy(source: Path, target: Path) -> None:
    """Copy the files that are shared."""
    for path in (path for pattern in _FILES for path in source.glob(pattern)):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _is_folder(place: str) -> bool:
    return place.startswith((".", "/", "~"))


def _check_installed() -> None:
    if find_spec("huggingface_hub") is None:
        raise ValueError(
            "sharing needs the package huggingface_hub: pip install 'pes-rl[hub]'"
        )


def _hub_error(repository: str, error: Exception) -> ValueError:
    reason = str(error).strip().split("\n")[0]
    return ValueError(
        f"{repository} cannot be reached on the hub: {reason}; check the name and the "
        "login (hf auth login), or use a folder: ./NAME"
    )


if __name__ == "__main__":
    finish(main())

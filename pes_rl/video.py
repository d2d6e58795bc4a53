"""Film what a policy does: `python -m pes_rl.video RUN`."""

import contextlib
import sys
from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from pes_rl.assembly.factories import own_network
from pes_rl.config.checks import check_seed
from pes_rl.graphics.animations import write_gif, write_mp4
from pes_rl.rendering.film import Film, make_film
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.run_folder.reader import read_source
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)
from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.runtime.progress import Progress
from pes_rl.runtime.waiting import waiting


@dataclass(frozen=True)
class VideoOptions:
    """Film whole fresh episodes of a trained policy, at the speed of the simulation."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or a policy file (npz) of one."""
    which: Literal["best", "last"] = "best"
    """The policy with the best evaluation of the run, or the last one; for a folder."""
    episodes: int = 1
    """Episodes, one after another."""
    steps: int | None = None
    """Steps of an episode at most; None films it to its end."""
    seed: int = 0
    """Seed of the first episode; the next ones count on."""
    size: int = 480
    """Height and width in pixels; what is no MuJoCo or Brax task has its own."""
    out: str | None = None
    """An .mp4 or a .gif; None makes RUN/video/WHICH.mp4, or one beside the policy file;
    a .gif without ffmpeg."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(VideoOptions, arguments, "video")
    return run_command(lambda: _film(options))


def _film(options: VideoOptions) -> None:
    returns, out = film_run(options)
    cut = "" if options.steps is None else f" of the first {options.steps} steps"
    print(f"return{cut}: {', '.join(f'{value:.1f}' for value in returns)}")
    print(out)


def film_run(options: VideoOptions) -> tuple[list[float], Path]:
    """Write the film; the episodes' returns and the file.

    Raises:
        ValueError: If the run cannot be read, or its environment cannot be drawn.
    """
    for name in ("episodes", "steps", "size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    check_seed(options.seed)
    config = read_source(Path(options.run))
    policy = load_policy(options.run, options.which, own_network(config))
    out = _choose_file(options)
    with waiting(f"loading {config.env}", output=sys.stderr):
        film = make_film(config, options.size)
    returns: list[float] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(config.env, options.episodes, "episodes") as progress:
        pictures = _pictures(options, policy, film, returns, progress)
        with contextlib.closing(pictures):
            write = write_gif if out.suffix == ".gif" else write_mp4
            write(out, pictures, film.fps / film.stride)
    return returns, out


def _choose_file(options: VideoOptions) -> Path:
    has_ffmpeg = find_spec("imageio_ffmpeg") is not None
    if options.out is None:
        suffix = "mp4" if has_ffmpeg else "gif"
        run = Path(options.run)
        if run.suffix == ".npz":
            return run.with_suffix(f".{suffix}")
        return run / "video" / f"{options.which}.{suffix}"
    out = Path(options.out)
    if out.suffix not in (".mp4", ".gif"):
        raise ValueError(f"{out} must end in .mp4 or .gif")
    if out.suffix == ".mp4" and not has_ffmpeg:
        raise ValueError(
            "an .mp4 needs imageio-ffmpeg; pip install 'pes-rl[video]', or write a .gif"
        )
    return out


def _pictures(
    options: VideoOptions,
    policy: TrainedPolicy,
    film: Film,
    returns: list[float],
    progress: Progress,
) -> Generator[np.ndarray]:
    """The pictures of all episodes; each episode's return is appended to `returns`."""
    for number in range(options.episodes):
        returns.append(0.0)
        steps = film.play(policy, options.seed + number, film.stride)
        for step, (reward, picture) in enumerate(steps, start=1):
            returns[-1] += reward
            if picture is not None:
                yield picture
            if step == options.steps:
                break
        progress.update(number + 1, f"return {returns[-1]:.1f}")


if __name__ == "__main__":
    finish(main())

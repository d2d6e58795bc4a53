"""Animations as files: GIF, and MP4 where imageio-ffmpeg is installed."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image


def write_gif(
    file: Path | IO[bytes], pictures: Iterable[np.ndarray], fps: float
) -> None:
    """Write an animated GIF that loops.

    Args:
        file: Where to.
        pictures: At least one. # shape=(height, width, 3), dtype=uint8
        fps: Pictures a second, at most 50.
    """
    colors = Image.Palette.ADAPTIVE
    frames = (Image.fromarray(p).convert("P", palette=colors) for p in pictures)
    first = next(frames)
    # A GIF counts hundredths of a second.
    first.save(
        file,
        format="GIF",
        save_all=True,
        append_images=frames,
        duration=10 * max(2, round(100 / fps)),
        loop=0,
    )


def write_mp4(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    """Write an MP4 film; needs imageio-ffmpeg.

    Args:
        path: Where to.
        pictures: At least one. # shape=(height, width, 3), dtype=uint8
        fps: Pictures a second.
    """
    import imageio.v2 as imageio

    # Players need even sizes and 4:2:0 colours.
    with imageio.get_writer(path, fps=fps, macro_block_size=2) as writer:
        for picture in pictures:
            writer.append_data(picture)  # type: ignore[attr-defined]

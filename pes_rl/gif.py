"""Animated GIFs."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image


def write_gif(
    file: Path | IO[bytes], pictures: Iterable[np.ndarray], fps: float
) -> None:
    """Write an animated GIF that repeats for ever.

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

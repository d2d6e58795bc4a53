"""Sets of small images with labels, for problems that train a classifier."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.unrolled.image_files import (
    CIFAR_10_MD5,
    IDX_MD5,
    read_cifar_10,
    read_idx_pair,
    write_idx,
)

ImageSet = Literal["mnist", "fashion-mnist", "cifar-10", "digits", "generated"]
Part = Literal["training", "validation"]

NUM_CLASSES = 10

_OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
_CACHE = Path.home() / ".cache" / "pes_rl"

# Pixels of each segment of a seven-segment digit with 7 rows of 4 pixels.
_SEGMENTS = {
    "a": np.s_[0, :],
    "b": np.s_[:4, 3],
    "c": np.s_[3:, 3],
    "d": np.s_[6, :],
    "e": np.s_[3:, 0],
    "f": np.s_[:4, 0],
    "g": np.s_[3, :],
}
_DIGITS = (
    *("abcdef", "bc", "abdeg", "abcdg", "bcfg"),
    *("acdfg", "acdefg", "abc", "abcdefg", "abcdfg"),
)


@dataclass(frozen=True)
class Images:
    """A set of labelled images; the last sixth is for validation.

    Of MNIST's 60,000 images 50,000 are for training, as published.

    Attributes:
        pixels: One image per row, colour after colour. # shape=(n, pixels), dtype=uint8
        labels: # shape=(n,), dtype=int32
        mean: Mean of each pixel's colour over the training images.
            # shape=(1, pixels), dtype=float32
        deviation: Standard deviation of each pixel's colour, of the same shape.
    """

    pixels: jax.Array
    labels: jax.Array
    mean: jax.Array
    deviation: jax.Array

    @property
    def num_pixels(self) -> int:
        """Number of values in an image."""
        return self.pixels.shape[1]

    def batch(self, bits: jax.Array, part: Part) -> tuple[jax.Array, jax.Array]:
        """Images drawn with replacement and standardised for each colour.

        Args:
            bits: Random numbers that choose the rows. # shape=(batch,), dtype=uint32
            part: The part of the set to draw from.

        Returns:
            (inputs [batch, pixels], labels [batch]).
        """
        first, last = part_bounds(self.labels.shape[0])[part]
        rows = first + (bits % jnp.uint32(last - first)).astype(jnp.int32)
        # Only the chosen images become floats; the whole set stays in bytes.
        inputs = self.pixels[rows].astype(float)
        mean, deviation = (x.astype(inputs.dtype) for x in (self.mean, self.deviation))
        return (inputs - mean) / deviation, self.labels[rows]


def part_bounds(num_images: int) -> dict[Part, tuple[int, int]]:
    """First row of each part of a set, and the row after its last."""
    num_training = num_images - num_images // 6
    return {
        "training": (0, num_training),
        "validation": (num_training, num_images),
    }


@cache
def load_images(
    name: ImageSet, folder: str | None = None, image_size: int | None = None
) -> Images:
    """The set with this name, read once in a process.

    Args:
        name: `mnist`, `fashion-mnist` and `cifar-10` are the original training images.
            `digits` are scikit-learn's 1797 images of 8 x 8 pixels. `generated` are
            6000 seven-segment digits of 8 x 8 pixels with noise, which need no file.
        folder: Folder of the original files. Without one MNIST and Fashion-MNIST are
            downloaded once, into a cache folder.
        image_size: Rows and columns that original images are made smaller to, by
            `shrink`; None leaves them as they are.

    Raises:
        ValueError: If a file is missing, damaged or not the original, or the size does
            not fit.
    """
    channels = 1
    if name == "cifar-10":
        channels = 3
        pixels, labels = read_cifar_10(_required(name, folder), CIFAR_10_MD5)
    elif name in IDX_MD5:
        where = Path(folder) if folder is not None else download(name)
        pixels, labels = read_idx_pair(where, IDX_MD5[name])
    elif folder is not None:
        raise ValueError(f"data_folder={folder!r} has no meaning for {name}; drop it")
    elif image_size is not None:
        raise ValueError(
            f"image_size={image_size} has no meaning for {name}, whose images are of "
            "8 x 8; drop it"
        )
    else:
        pixels, labels = _load_digits() if name == "digits" else _generate_digits()
    if image_size is not None:
        pixels = shrink(pixels, channels, image_size)
    return _as_images(pixels, labels, channels)


def shrink(pixels: np.ndarray, channels: int, size: int) -> np.ndarray:
    """Square images with fewer pixels, each the mean of the area that it covers.

    Where the size divides the former one these are means of blocks; a pixel that lies
    in two areas counts in both, by its shares. Means are rounded to whole numbers.

    Args:
        pixels: Images in rows, colour after colour. # shape=(n, pixels), dtype=uint8
        channels: Number of colours.
        size: New number of rows and of columns.

    Returns:
        # shape=(n, channels * size**2), dtype=uint8

    Raises:
        ValueError: If the images are smaller than that.

    Example:
        >>> image = np.array([[0, 10, 4, 4], [10, 20, 4, 4]] * 2, np.uint8)
        >>> shrink(image.reshape(1, 16), 1, 2).tolist()
        [[10, 4, 10, 4]]
    """
    before = math.isqrt(pixels.shape[1] // channels)
    if size > before:
        raise ValueError(
            f"image_size={size} is more than the {before} of the original images; use "
            f"{before} or less"
        )
    edges = np.linspace(0, before, size + 1)
    ends = np.minimum.outer(edges, np.arange(1, before + 1))
    below = np.maximum(ends - np.arange(before), 0)  # of each pixel, before an edge
    shares = (np.diff(below, axis=0) * size / before).astype(np.float32)
    parts = np.array_split(pixels, 1 + len(pixels) // 4096)  # floats take more room
    means = (shares @ part.reshape(-1, before, before) @ shares.T for part in parts)
    small = np.concatenate([np.rint(mean).astype(np.uint8) for mean in means])
    return small.reshape(len(pixels), -1)


def _required(name: str, folder: str | None) -> Path:
    if folder is None:
        raise ValueError(
            f"{name} is not downloaded; set data_folder to the folder with its "
            f"original files ({', '.join(CIFAR_10_MD5)})"
        )
    return Path(folder)


def _as_images(pixels: np.ndarray, labels: np.ndarray, channels: int) -> Images:
    first, last = part_bounds(len(labels))["training"]
    colours = pixels[first:last].reshape(last - first, channels, -1)
    size = colours.shape[2]
    mean, deviation = (
        np.repeat(statistic, size)[None].astype(np.float32)
        for statistic in (colours.mean((0, 2)), colours.std((0, 2)))
    )
    # Concrete arrays, also where the first call comes from a traced function.
    with jax.ensure_compile_time_eval():
        return Images(
            jnp.asarray(pixels),
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(mean),
            jnp.asarray(deviation),
        )


def download(name: str, cache_folder: Path = _CACHE) -> Path:
    """Folder with the original files, downloaded from OpenML unless they exist.

    They are read and checked like files of the user. scikit-learn takes about a minute
    to parse OpenML's format.

    Raises:
        ValueError: If the download fails.
    """
    folder = cache_folder / name
    images, labels = (folder / file for file in IDX_MD5[name])
    if images.exists() and labels.exists():
        return folder
    fetch = _scikit_learn().fetch_openml
    try:
        found: Any = fetch(_OPENML[name], version=1, as_frame=False, parser="liac-arff")
        folder.mkdir(parents=True, exist_ok=True)
        # The training images come first.
        pixels = found.data[:60_000].astype(np.uint8).reshape(-1, 28, 28)
        write_idx(images, pixels)
        write_idx(labels, found.target[:60_000].astype(np.uint8))
    except OSError as error:
        raise ValueError(
            f"{name} could not be downloaded ({error}); set data_folder to a folder "
            f"with the original {images.name} and {labels.name}"
        ) from error
    return folder


def _scikit_learn() -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise ValueError(
            "digits, and downloads, need scikit-learn; pip install 'pes-rl[data]', or "
            "use the data set generated"
        ) from error
    return sklearn.datasets


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    digits = _scikit_learn().load_digits()
    return (15 * digits.data).astype(np.uint8), digits.target  # from 0 to 16


def _generate_digits(num_images: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(NUM_CLASSES, size=num_images)
    images = 40 * np.abs(generator.normal(size=(num_images, 8, 8)))
    for image, label in zip(images, labels, strict=True):
        top, left = generator.integers((2, 5))
        place = image[top : top + 7, left : left + 4]
        for segment in _DIGITS[label]:
            place[_SEGMENTS[segment]] += generator.uniform(60, 220)
    return np.minimum(images, 255).astype(np.uint8).reshape(num_images, -1), labels

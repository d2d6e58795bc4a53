"""Readers of the original MNIST, Fashion-MNIST and CIFAR-10 files.

Each file's content is compared with a checksum, so that a run is known to use the
original data. No file is executed: CIFAR-10 is read in its binary version, not as
pickles.
"""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

IDX_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    },
}
"""Checksums of the decompressed content by set and file; compressed files differ."""

CIFAR_10_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
}

_UNSIGNED_BYTES = 8  # idx's code for the type of the numbers
_CIFAR_10_PIXELS = 3 * 32 * 32


def read_idx_pair(folder: Path, md5: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from two gzipped idx files.

    Args:
        folder: Folder of the files.
        md5: Checksum of the decompressed content by file name; first that of images.

    Returns:
        (pixels [n, pixels], labels [n]), uint8.

    Raises:
        ValueError: If a file is missing, damaged or not the original.
    """
    images, labels = (read_idx(folder / name, digest) for name, digest in md5.items())
    return images.reshape(len(images), -1), labels


def read_idx(path: Path, md5: str) -> np.ndarray:
    """The array in a gzipped idx file of unsigned bytes.

    An idx file has two zero bytes, the type, the number of axes, the length of each
    axis as a big-endian 32-bit number, and then the numbers in row order.

    Raises:
        ValueError: If the file is missing, damaged, not an idx file, or has another
            checksum.
    """
    try:
        content = gzip.decompress(_read(path))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged or not gzipped ({error}); fetch the original file again"
        ) from error
    _check_md5(path, content, md5)
    start = 4 + 4 * content[3] if content[:3] == bytes([0, 0, _UNSIGNED_BYTES]) else 0
    is_whole = 4 < start <= len(content)
    shape = np.frombuffer(content[4:start], ">u4").tolist() if is_whole else []
    if not is_whole or math.prod(shape) != len(content) - start:
        raise ValueError(f"{path} holds no idx array of bytes; fetch the original file")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of unsigned bytes as a gzipped idx file, atomically."""
    header = bytes([0, 0, _UNSIGNED_BYTES, array.ndim])
    shape = np.array(array.shape, ">u4").tobytes()
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(gzip.compress(header + shape + array.tobytes(), mtime=0))
    unfinished.replace(path)


def read_cifar_10(folder: Path, md5: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from files of CIFAR-10's binary version.

    A row of a file is one byte with the label and 3072 bytes with the pixels: red,
    green, blue.

    Args:
        folder: Folder of the files, `cifar-10-batches-bin` in the original archive.
        md5: Checksum by file name.

    Returns:
        (pixels [n, 3072], labels [n]), uint8.

    Raises:
        ValueError: If a file is missing, damaged or not the original.
    """
    contents = []
    for name, digest in md5.items():
        content = _read(folder / name)
        _check_md5(folder / name, content, digest)
        contents.append(content)
    rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 1 + _CIFAR_10_PIXELS)
    return rows[:, 1:], rows[:, 0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); data_folder must be the folder "
            "with the original files under their original names"
        ) from error


def _check_md5(path: Path, content: bytes, md5: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{path} has the checksum {found} (md5 of {len(content)} bytes) instead of "
            f"{md5}; it is damaged or another file: fetch the original"
        )

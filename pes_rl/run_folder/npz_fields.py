"""Reading and checking the fields of npz files, which may be damaged or foreign.

Every error is a `ValueError` of one line that names the file, the field, what it holds
and what it should hold. No code in a file is executed. Nothing here imports JAX.
"""

import reprlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read_fields(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz file that have these names; those it lacks are left out.

    Raises:
        ValueError: If the file, or one of the arrays, cannot be read.
    """
    reading = "it"
    try:
        # NumPy warns of headers that are odd, and leaves a damaged file open.
        with warnings.catch_warnings(action="ignore"), path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array and must hold several")
            arrays = {}
            for name in names:
                reading = f"its field {name!r}"
                if name in file.files:
                    arrays[name] = file[name]
                    if not isinstance(arrays[name], np.ndarray):  # NumPy gives bytes.
                        raise ValueError("it does not begin as an array does")
                    if arrays[name].dtype.kind == "U":
                        arrays[name].tolist()  # Fails for characters beyond Unicode.
            return arrays
    except Exception as error:
        # zipfile, zlib and NumPy raise a dozen types for a damaged file.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{reading} cannot be read: {reason}") from error


def check_vector(path: Path, name: str, array: np.ndarray, size: int, why: str) -> None:
    """Raise `ValueError` unless the array holds `size` finite numbers in float32.

    Args:
        path: The file.
        name: Name of the field.
        array: Its content.
        size: Length that it must have.
        why: What the length is, such as "the number of parameters".
    """
    if array.dtype.kind != "f":
        expected = f"{size} floating-point numbers"
        raise wrong(path, name, f"holds values of type {array.dtype}", expected)
    if array.shape != (size,):
        raise wrong(path, name, f"has shape {array.shape}", f"have ({size},), {why}")
    # In float32 too: that is the precision of training.
    bad = ~(np.abs(array) <= np.finfo(np.float32).max)
    if bad.any():
        at = int(np.argmax(bad))
        holds = f"holds {array[at]} at position {at}"
        raise wrong(path, name, holds, "hold finite float32 numbers alone")


def wrong(path: Path, name: str, holds: str, expected: str) -> ValueError:
    """The error of a field that holds something else than it should."""
    return ValueError(f"{path}: {name} {holds} and must {expected}")


def shown(value: Any) -> str:
    """The value as text of one line, shortened."""
    return reprlib.repr(value)

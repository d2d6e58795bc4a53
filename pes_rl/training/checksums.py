"""Checks of what a checkpoint holds: checksums, and counters and theta of a run.

Errors are `ValueError`s about the checkpoint as "it", whose name the caller adds.
"""

import dataclasses
import json
import reprlib
import sys
import zlib
from typing import Any, get_args, get_type_hints

import jax
import numpy as np

from pes_rl.learner.learner import TrainState
from pes_rl.runtime.multihost import on_host
from pes_rl.training.counters import Counters


def describe_counters(
    counters: Counters, version: int, arrays: dict[str, int]
) -> dict[str, Any]:
    """The JSON object of a checkpoint: counters, version, and checksums of all."""
    described = {
        "format": version,
        "array_checksums": arrays,
        **dataclasses.asdict(counters),
    }
    return {**described, "checksum": _checksum_of_json(described)}


def check_counters(read: Any, newest: int) -> tuple[Counters, dict[str, int]]:
    """The counters, and the checksums of the arrays, in the JSON of a checkpoint.

    Args:
        read: What `describe_counters` made, or older JSON, which has no checksums.
        newest: The newest version that can be read.

    Raises:
        ValueError: If it is something else, or has changed since.
    """
    if not isinstance(read, dict):
        raise ValueError(f"its counters are {reprlib.repr(read)}, not an object")
    version = read.get("format", 0)
    if type(version) is not int:
        raise ValueError(
            f"its format is {reprlib.repr(version)} and must be a whole number"
        )
    if version > newest:
        raise ValueError(
            f"it is of format {version}, from a newer pes_rl, and this one reads "
            f"formats up to {newest}"
        )
    values = {name: value for name, value in read.items() if name != "format"}
    checksum, arrays = None, {}
    if version > 1:
        checksum, arrays = (
            values.pop("checksum", None),
            values.pop("array_checksums", None),
        )
    unknown = values.keys() - {field.name for field in dataclasses.fields(Counters)}
    if unknown or "timesteps" not in values:
        raise ValueError("its counters are not those of a run")
    for name, value in values.items():
        _check_counter(name, value)
    described = {name: value for name, value in read.items() if name != "checksum"}
    if version > 1 and checksum != _checksum_of_json(described):
        raise ValueError("its counters have another checksum than when it was saved")
    return Counters(**values), arrays


_LEAST = {"best_return": -sys.float_info.max, "last_return": -sys.float_info.max}
"""Counters that may be negative; the others are at least 0."""


def _check_counter(name: str, value: Any) -> None:
    hint = get_type_hints(Counters)[name]
    kinds = get_args(hint) or (hint,)
    if value is None and type(None) in kinds:
        return
    is_whole = float not in kinds
    expected = "a whole number" if is_whole else "a finite number"
    least = _LEAST.get(name, 0)
    if name not in _LEAST:
        expected += " of at least 0"
    if (
        isinstance(value, bool)
        or not isinstance(value, int if is_whole else (int, float))
        or not least <= value <= sys.float_info.max
    ):
        shown = reprlib.repr(value)
        raise ValueError(f"its counter {name} is {shown} and must be {expected}")


def checksums_of(state: Any) -> dict[str, int]:
    """CRC-32 of each array, by its name.

    In a run of several processes, of those that every process has whole.
    """
    return {
        name: _checksum_of_array(array)
        for name, array in arrays_by_name(state).items()
        if _is_whole(array)
    }


def check_arrays(state: TrainState, checksums: dict[str, int]) -> None:
    """Raise `ValueError` if an array has changed, or theta is not finite."""
    found = checksums_of(state)
    for name, checksum in checksums.items():
        if found.get(name, checksum) != checksum:
            raise ValueError(f"its {name} has another checksum than when it was saved")
    if not np.isfinite(on_host(state.theta)).all():
        raise ValueError("its theta holds NaN or infinity and must be finite")


def _is_whole(array: Any) -> bool:
    if not isinstance(array, jax.Array):
        return True
    return array.is_fully_addressable or array.is_fully_replicated


def _checksum_of_array(array: Any) -> int:
    contiguous = np.ascontiguousarray(array)
    return zlib.crc32(contiguous.reshape(-1).view(np.uint8).data)


def _checksum_of_json(described: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(described, sort_keys=True).encode())


def arrays_by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their names, such as estimator.accumulator."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {name_of(path): leaf for path, leaf in leaves}


def name_of(path: Any) -> str:
    """Name of the array at a path of a tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")

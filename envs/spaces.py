"""Spaces of observations and actions as plain data, in NumPy alone.

A policy maps one vector to another. Here is how an observation becomes a vector
(`flatten`), and how a vector of the policy's outputs becomes an action (`to_action`),
for an environment whose own observations or actions have another form. Neither
Gymnasium nor JAX is imported: a trained policy runs without them.

Every method takes one sample, or a batch of N whose arrays have a leading axis N, as
those of a `gymnasium.vector.VectorEnv` have it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Box:
    """Arrays of one shape and type.

    Flattened in C order. As actions: the outputs in that order, which are not clipped
    here; the policy does it.

    >>> Box((2, 2)).flatten([[1, 2], [3, 4]])
    array([1., 2., 3., 4.])
    >>> Box((2, 1)).to_action(np.array([0.5, -1.0]))
    array([[ 0.5],
           [-1. ]], dtype=float32)
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Length of the vector."""
        return math.prod(self.shape)

    def flatten(self, value: Any, name: str = "observation") -> np.ndarray:
        array, batch = _read(value, self.shape, "biuf", name)
        array = array.astype(self.dtype).astype(np.float64)
        return array.reshape(*batch, self.size)

    def to_action(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(*outputs.shape[:-1], *self.shape).astype(self.dtype)


@dataclass(frozen=True)
class Discrete:
    """The n whole numbers from `start`.

    Flattened to one number a choice: 1 for the one that is it, else 0. As actions: the
    choice with the greatest of the n outputs, the first of equal ones. With `noise`
    added to the outputs it is a sample of their softmax (the Gumbel-max trick).

    >>> Discrete(3, start=5).flatten(6)
    array([0., 1., 0.])
    >>> Discrete(3, start=5).to_action(np.array([0.1, 0.7, 0.7]))
    6
    """

    n: int
    start: int = 0

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.n

    def flatten(self, value: Any, name: str = "observation") -> np.ndarray:
        array, _ = _read(value, (), "biu", name)
        return _one_hot(array, self.n, self.start, name)

    def to_action(self, outputs: np.ndarray) -> Any:
        """An int; of a batch an array. # shape=(N,), dtype=int64."""
        best = outputs.argmax(-1) + self.start
        return best if outputs.ndim > 1 else int(best)

    def noise(self, generator: np.random.Generator) -> np.ndarray:
        """What makes the greatest output a sample of the softmax. # shape=(n,)."""
        return generator.gumbel(size=self.n)


@dataclass(frozen=True)
class MultiDiscrete:
    """Arrays of whole numbers, each with its own choices; see `Discrete`.

    Flattened number by number, in C order.

    >>> MultiDiscrete((2,), (2, 3), (0, 0)).to_action(np.array([0, 1, 5, 2, 3]))
    array([1, 0])

    Attributes:
        shape: Of the array, of M numbers.
        nvec: Count of choices of each of the M numbers, in C order.
        start: First choice of each.
        dtype: Type of the array.
    """

    shape: tuple[int, ...]
    nvec: tuple[int, ...]
    start: tuple[int, ...]
    dtype: str = "int64"

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.nvec)

    @property
    def _slices(self) -> list[slice]:
        ends = np.cumsum([0, *self.nvec]).tolist()
        return [slice(*ends) for ends in pairwise(ends)]

    def flatten(self, value: Any, name: str = "observation") -> np.ndarray:
        array, batch = _read(value, self.shape, "biu", name)
        array = array.reshape(*batch, len(self.nvec))
        numbers = zip(self.nvec, self.start, strict=True)
        return np.concatenate(
            [
                _one_hot(array[..., i], n, start, name)
                for i, (n, start) in enumerate(numbers)
            ],
            axis=-1,
        )

    def to_action(self, outputs: np.ndarray) -> np.ndarray:
        best = np.stack([outputs[..., s].argmax(-1) for s in self._slices], axis=-1)
        action = (best + self.start).astype(self.dtype)
        return action.reshape(*outputs.shape[:-1], *self.shape)

    def noise(self, generator: np.random.Generator) -> np.ndarray:
        """What makes the greatest outputs samples of their softmax. # shape=(size,)."""
        return generator.gumbel(size=self.size)


@dataclass(frozen=True)
class MultiBinary:
    """Arrays of 0 and 1.

    Flattened in C order. As actions: 1 where the output is above 0. With `noise` added
    to the outputs it is 1 with the probability 1 / (1 + exp(-output)).

    >>> MultiBinary((3,)).to_action(np.array([0.5, 0.0, -2.0]))
    array([1, 0, 0], dtype=int8)
    """

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return math.prod(self.shape)

    def flatten(self, value: Any, name: str = "observation") -> np.ndarray:
        return Box(self.shape, "int8").flatten(value, name)

    def to_action(self, outputs: np.ndarray) -> np.ndarray:
        return Box(self.shape, "int8").to_action(outputs > 0)

    def noise(self, generator: np.random.Generator) -> np.ndarray:
        """What makes it a sample of the logistic probability. # shape=(size,)."""
        return generator.logistic(size=self.size)


@dataclass(frozen=True)
class Tuple:
    """Several spaces; flattened one after another.

    >>> Tuple((Discrete(2), Box((2,)))).flatten((1, [0.5, 0.25]))
    array([0.  , 1.  , 0.5 , 0.25])
    """

    spaces: tuple["Space", ...]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(space.size for space in self.spaces)

    def flatten(self, value: Any, name: str = "observation") -> np.ndarray:
        if not isinstance(value, tuple | list) or len(value) != len(self.spaces):
            raise ValueError(
                f"{name} must be a tuple of {len(self.spaces)} and is "
                f"{_kind_and_length(value)}"
            )
        return _join(self.spaces, value, range(len(self.spaces)), name)


@dataclass(frozen=True)
class Dict:
    """Several spaces with names; flattened one after another.

    >>> Dict(("a", "b"), (Box((1,)), Discrete(2))).flatten({"b": 1, "a": [0.5]})
    array([0.5, 0. , 1. ])

    Attributes:
        keys: The names, in the order of the vector; Gymnasium sorts those of a plain
            dictionary.
        spaces: As many.
    """

    keys: tuple[str | int, ...]
    spaces: tuple["Space", ...]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(space.size for space in self.spaces)

    def flatten(self, value: Any, name: str = "observation") -> np.ndarray:
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{name} must be a dictionary with {list(self.keys)} and is "
                f"{_kind_and_length(value)}"
            )
        for key in self.keys:
            if key not in value:
                raise ValueError(f"{name} has no {key!r}; it has {list(value)}")
        return _join(self.spaces, [value[key] for key in self.keys], self.keys, name)


Choices = Discrete | MultiDiscrete | MultiBinary
ActionSpace = Box | Choices
Space = ActionSpace | Tuple | Dict


@dataclass(frozen=True)
class Spaces:
    """The forms of an environment's observations and actions.

    Attributes:
        observation: None for a vector of numbers, which the policy takes as it is.
        action: None for a vector of float32, which the policy returns as it is.
    """

    observation: Space | None = None
    action: ActionSpace | None = None


def _read(
    value: Any, shape: tuple[int, ...], kinds: str, name: str
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The value as an array, and the shape of the batch: () or (N,)."""
    try:
        array = np.asarray(value)
    except ValueError:  # Lists of different lengths.
        array = np.asarray(None)
    leading = array.ndim - len(shape)
    if array.dtype.kind not in kinds:
        what = "whole numbers" if kinds == "biu" else "numbers"
        raise ValueError(f"{name} must be {what} and is {_kind_and_length(value)}")
    if leading not in (0, 1) or array.shape[leading:] != shape:
        batch = ", ".join(["N", *map(str, shape)]) + ("" if shape else ",")
        raise ValueError(
            f"{name} has shape {array.shape}; this policy takes {shape} or ({batch})"
        )
    return array, array.shape[:leading]


def _one_hot(array: np.ndarray, n: int, start: int, name: str) -> np.ndarray:
    if ((array < start) | (array >= start + n)).any():
        raise ValueError(
            f"{name} is {array.tolist()} and must be from {start} to {start + n - 1}"
        )
    return (array[..., None] == np.arange(start, start + n)).astype(np.float64)


def _join(spaces: Any, values: Any, keys: Any, name: str) -> np.ndarray:
    parts = [
        space.flatten(value, f"{name}[{key!r}]")
        for space, value, key in zip(spaces, values, keys, strict=True)
    ]
    if len({part.shape[:-1] for part in parts}) > 1:
        batches = {
            f"{name}[{key!r}]": part.shape[:-1]
            for key, part in zip(keys, parts, strict=True)
        }
        raise ValueError(
            f"the parts of {name} are batches of different lengths: {batches}"
        )
    return np.concatenate(parts, axis=-1)


def _kind_and_length(value: Any) -> str:
    length = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{length}"

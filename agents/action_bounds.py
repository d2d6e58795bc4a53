"""Bounds of actions: from a network's output to an action inside the action space.

Works on JAX and NumPy arrays, and imports neither JAX nor a network library.
"""

import math
from typing import Any

import numpy as np

Array = Any  # a JAX or a NumPy array


def check_squash(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    """Raise `ValueError` if tanh cannot be scaled to these bounds."""
    if not all(map(math.isfinite, (*low, *high))):
        raise ValueError(
            f"squash scales tanh to the bounds of the action, and these are {low} to "
            f"{high}, not all of them finite; use squash_actions=False, which clips"
        )


def bound_actions(
    output: Array,
    low: tuple[float, ...],
    high: tuple[float, ...],
    *,
    clip: bool,
    squash: bool,
) -> Array:
    """Actions from the outputs of a policy's last layer.

    With `squash` the action is (low + high) / 2 + (high - low) / 2 * tanh(output). It
    has a derivative everywhere, and reaches a bound only in the limit. Otherwise, with
    `clip`, it is min(max(output, low), high); without either, the output itself.

    Args:
        output: # shape=(A,) or (N, A)
        low, high: Bounds of each action, A numbers each; finite with `squash`.
        clip: Clip to the bounds.
        squash: Squash into the bounds; `clip` is then without effect.

    >>> outputs, low, high = np.array([0.0, 9.0]), (-1.0, 0.0), (3.0, 2.0)
    >>> bound_actions(outputs, low, high, clip=True, squash=False)
    array([0., 2.])
    """
    if not (clip or squash):
        return output
    xp = output.__array_namespace__()
    if squash:
        middle = tuple((a + b) / 2 for a, b in zip(low, high, strict=True))
        half = tuple((b - a) / 2 for a, b in zip(low, high, strict=True))
        output = _row(middle, output) + _row(half, output) * xp.tanh(output)
        # Where tanh rounds to 1, the sum can be above the bound in its last bit.
    low_row, high_row = _row(low, output), _row(high, output)
    # Takes a third of the time of clip.
    return xp.minimum(xp.maximum(output, low_row), high_row)


def _row(numbers: tuple[float, ...], x: Array) -> Any:
    """The numbers in a form that broadcasts with x; one number if all are equal.

    NumPy is four times as fast with a number as with a short row.
    """
    if min(numbers) == max(numbers):
        return numbers[0]
    row = np.array(numbers)[(None,) * (x.ndim - 1)]
    return x.__array_namespace__().asarray(row, dtype=x.dtype)

"""Activation functions of the built-in networks, for JAX and NumPy arrays alike.

They agree with `flax.linen.tanh`, `relu`, `elu` and `silu`.
"""

from collections.abc import Callable
from typing import Any

Array = Any  # a JAX or a NumPy array


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return x.__array_namespace__().tanh(x)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return x.__array_namespace__().maximum(x, 0)


def elu(x: Array) -> Array:
    """The input where it is positive, else exp(input) - 1."""
    xp = x.__array_namespace__()
    return xp.where(x > 0, x, xp.expm1(xp.minimum(x, 0)))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow, and exact to rounding at either end."""
    xp = x.__array_namespace__()
    small = xp.exp(-abs(x))
    return xp.where(x >= 0, 1, small) / (1 + small)


def silu(x: Array) -> Array:
    """The input times its sigmoid; also called swish."""
    return x * sigmoid(x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": tanh,
    "relu": relu,
    "elu": elu,
    "silu": silu,
}

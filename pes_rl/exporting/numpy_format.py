"""Policies as npz files of plain matrices, for programs without a network library."""

import io
from collections.abc import Callable

import numpy as np

from pes_rl.exporting.layers import Layers


def to_numpy(layers: Layers) -> bytes:
    """An npz file: `mean`, `std`, `weight0`, `bias0`, ..., `low`, `high`, float32.

    `run_numpy` shows how to compute an action from them.
    """
    arrays = {"mean": layers.mean, "std": layers.std}
    for layer, (weights, bias) in enumerate(
        zip(layers.weights, layers.biases, strict=True)
    ):
        arrays[f"weight{layer}"], arrays[f"bias{layer}"] = weights, bias
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays, low=layers.low, high=layers.high)
    return file.getvalue()


def run_numpy(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The content of such a file as a function of observations [N, O]."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)

    def act(observations: np.ndarray) -> np.ndarray:
        x = (observations - arrays["mean"]) / arrays["std"]
        layer = 0
        while f"weight{layer}" in arrays:
            if layer > 0:
                x = np.tanh(x)
            x = x @ arrays[f"weight{layer}"].T + arrays[f"bias{layer}"]
            layer += 1
        return np.clip(x, arrays["low"], arrays["high"])

    return act

"""Policies as npz files of plain matrices, for programs without a network library."""

import io
from collections.abc import Callable

import numpy as np

from pes_rl.agents.activations import ACTIVATIONS
from pes_rl.exporting.layers import Layers


def to_numpy(layers: Layers) -> bytes:
    """An npz file: `mean`, `std`, `weight0`, `bias0`, ..., `low`, `high`, float32.

    `activation` is the name of the hidden layers' function, and `squash` says whether
    tanh takes the place of clipping.

    `run_numpy` shows how to compute an action from them.
    """
    arrays = {"mean": layers.mean, "std": layers.std}
    for layer, (weights, bias) in enumerate(
        zip(layers.weights, layers.biases, strict=True)
    ):
        arrays[f"weight{layer}"], arrays[f"bias{layer}"] = weights, bias
    file = io.BytesIO()
    np.savez(
        file,
        allow_pickle=False,
        **arrays,
        activation=np.array(layers.activation),
        squash=np.array(layers.squash),
        low=layers.low,
        high=layers.high,
    )
    return file.getvalue()


def run_numpy(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The content of such a file as a function of observations [N, O]."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)

    def act(observations: np.ndarray) -> np.ndarray:
        x = (observations - arrays["mean"]) / arrays["std"]
        activation, layer = ACTIVATIONS[str(arrays["activation"])], 0
        while f"weight{layer}" in arrays:
            if layer > 0:
                x = activation(x)
            x = x @ arrays[f"weight{layer}"].T + arrays[f"bias{layer}"]
            layer += 1
        low, high = arrays["low"], arrays["high"]
        if arrays["squash"]:
            return (low + high) / 2 + (high - low) / 2 * np.tanh(x)
        return np.clip(x, low, high)

    return act

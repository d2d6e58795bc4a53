"""Policies as TorchScript files, which C++ programs read by libtorch."""

# pyright: reportMissingImports=false

import io
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from pes_rl.exporting.layers import Layers


def to_torchscript(layers: Layers) -> bytes:
    """A TorchScript function: observations [batch, O] to actions [batch, A], float32.

    Raises:
        ValueError: If the package torch is missing.
    """
    if find_spec("torch") is None:
        raise ValueError(
            "TorchScript needs PyTorch: install torch, or use --format onnx or numpy"
        )
    import torch

    mean, std, low, high = map(
        torch.tensor, (layers.mean, layers.std, layers.low, layers.high)
    )
    functions = torch.nn.functional
    activation = {
        "tanh": torch.tanh,
        "relu": functions.relu,
        "elu": functions.elu,
        "silu": functions.silu,
    }[layers.activation]
    matrices = [
        (torch.tensor(weights), torch.tensor(bias))
        for weights, bias in zip(layers.weights, layers.biases, strict=True)
    ]

    def act(observation: Any) -> Any:
        x = (observation - mean) / std
        for layer, (weights, bias) in enumerate(matrices):
            if layer > 0:
                x = activation(x)
            x = torch.nn.functional.linear(x, weights, bias)
        if layers.squash:
            return (low + high) / 2 + (high - low) / 2 * torch.tanh(x)
        return torch.clamp(x, low, high)

    file = io.BytesIO()
    with _without_deprecations():
        traced = torch.jit.trace(act, torch.zeros(2, len(layers.mean)))
        torch.jit.save(traced, file)
    return file.getvalue()


def run_torchscript(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The content of a TorchScript file as a function of NumPy arrays."""
    import torch

    with _without_deprecations():
        loaded = torch.jit.load(io.BytesIO(content))
    return lambda observations: loaded(torch.from_numpy(observations)).numpy()


def _without_deprecations() -> warnings.catch_warnings:
    # PyTorch wants torch.export instead, whose files libtorch cannot read.
    return warnings.catch_warnings(action="ignore", category=FutureWarning)

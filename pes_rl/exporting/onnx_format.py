"""Policies as ONNX models."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from pes_rl.exporting.layers import Layers

_OPSET, _IR_VERSION = 17, 8
"""ONNX 1.12 of 2022: old enough for the runtimes in use."""


def to_onnx(layers: Layers, description: Mapping[str, str]) -> bytes:
    """An ONNX model: `observation` [batch, O] to `action` [batch, A], float32.

    Args:
        layers: The policy.
        description: Names and texts that the model carries as metadata.

    Raises:
        ValueError: If the package onnx is missing.
    """
    if find_spec("onnx") is None:
        raise ValueError(
            "ONNX needs the package onnx: pip install 'pes-rl[onnx]', or use "
            "--format numpy"
        )
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def add(kind: str, *inputs: str, **attributes: int) -> str:
        output = f"x{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def activate(x: str) -> str:
        if layers.activation == "silu":
            return add("Mul", x, add("Sigmoid", x))
        return add(layers.activation.capitalize(), x)  # Tanh, Relu, Elu

    x = add("Sub", "observation", constant("mean", layers.mean))
    x = add("Div", x, constant("std", layers.std))
    for layer, (weights, bias) in enumerate(
        zip(layers.weights, layers.biases, strict=True)
    ):
        if layer > 0:
            x = activate(x)
        names = constant(f"weight{layer}", weights), constant(f"bias{layer}", bias)
        x = add("Gemm", x, *names, transB=1)
    if layers.squash:
        x = add("Mul", add("Tanh", x), constant("half_width", layers.half_width))
        add("Add", x, constant("middle", layers.middle))
    else:
        x = add("Max", x, constant("low", layers.low))  # Clip takes one bound for all.
        add("Min", x, constant("high", layers.high))
    nodes[-1].output[0] = "action"

    def tensor(name: str, size: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        nodes,
        "policy",
        [tensor("observation", len(layers.mean))],
        [tensor("action", len(layers.low))],
        constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="pes_rl",
    )
    helper.set_model_props(model, dict(description))
    checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run_onnx(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The model as a function: by onnxruntime, or where it is missing by onnx itself.

    Args:
        model: Of `to_onnx`.
    """
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        runner: Any = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
    else:
        from onnx import load_from_string
        from onnx.reference import ReferenceEvaluator

        runner = ReferenceEvaluator(load_from_string(model))
    return lambda observations: runner.run(None, {"observation": observations})[0]

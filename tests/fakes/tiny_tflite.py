"""A real, small .tflite file for tests, made without a converter."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def write_tflite(path: Path, widths: tuple[int, ...] = (16, 12, 4), seed: int = 0) -> Path:
    """An MLP of FULLY_CONNECTED layers, ReLU between: (1, widths[0]) -> (1, widths[-1])."""
    random = np.random.default_rng(seed)
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[schema.OperatorCodeT()])
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    graph = schema.SubGraphT(tensors=[], operators=[], name="main")

    def tensor(name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        buffer = 0
        if data is not None:
            model.buffers.append(schema.BufferT(data=np.frombuffer(data.astype(np.float32).tobytes(), np.uint8)))
            buffer = len(model.buffers) - 1
        graph.tensors.append(schema.TensorT(name=name, shape=list(shape), buffer=buffer))
        return len(graph.tensors) - 1

    last = tensor("x", (1, widths[0]))
    graph.inputs = [last]
    for index, (wide, narrow) in enumerate(pairwise(widths)):
        weight = tensor(f"w{index}", (narrow, wide), random.standard_normal((narrow, wide)) / wide**0.5)
        bias = tensor(f"b{index}", (narrow,), random.standard_normal(narrow))
        made = tensor(f"y{index}", (1, narrow))
        options = schema.FullyConnectedOptionsT()
        if index < len(widths) - 2:
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        graph.operators.append(
            schema.OperatorT(
                inputs=[last, weight, bias],
                outputs=[made],
                builtinOptions=options,
                builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
            )
        )
        last = made
    graph.outputs = [last]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path

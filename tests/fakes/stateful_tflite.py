"""Real, small .tflite files, most of which keep state from run to run, made without a converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_OPERATORS = schema.BuiltinOperator


class _Maker:
    """A model with one graph, written tensor by tensor and operator by operator."""

    def __init__(self) -> None:
        self.model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[])
        self.graph = schema.SubGraphT(tensors=[], operators=[], name="main")
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        data: np.ndarray | None = None,
        kind: int = schema.TensorType.FLOAT32,
        variable: bool = False,
    ) -> int:
        buffer = 0
        if data is not None:
            self.model.buffers.append(schema.BufferT(data=np.frombuffer(data.tobytes(), np.uint8)))
            buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(
            schema.TensorT(name=name, shape=list(shape), buffer=buffer, type=kind, isVariable=variable)
        )
        return len(self.graph.tensors) - 1

    def operator(self, code: int, inputs: list[int], outputs: list[int], options: Any = None) -> None:
        codes = self.model.operatorCodes
        codes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=1))
        made = schema.OperatorT(opcodeIndex=len(codes) - 1, inputs=inputs, outputs=outputs)
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            made.builtinOptions, made.builtinOptionsType = options, getattr(schema.BuiltinOptions, name)
        self.graph.operators.append(made)

    def write(self, path: Path) -> Path:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def write_recurrent(path: Path, inputs: int, recurrence: float = 5.0, classes: int = 2) -> Path:
    """y = x[:classes] + recurrence * h, then h = y: the operator RNN with its state in a variable tensor."""
    make = _Maker()
    x = make.tensor("x", (1, inputs))
    weights = make.tensor("w", (classes, inputs), np.eye(classes, inputs, dtype=np.float32))
    again = make.tensor("r", (classes, classes), recurrence * np.eye(classes, dtype=np.float32))
    bias = make.tensor("b", (classes,), np.zeros(classes, np.float32))
    state = make.tensor("h", (1, classes), variable=True)
    y = make.tensor("y", (1, classes))
    make.operator(_OPERATORS.RNN, [x, weights, again, bias, state], [y], schema.RNNOptionsT())
    make.graph.inputs, make.graph.outputs = [x], [y]
    return make.write(path)


def write_resource(path: Path, size: int) -> Path:
    """y = x + v, then v = y: a resource variable, which a second graph sets to 0 at the first run."""
    make = _Maker()
    begin, main = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name="begin"), make.graph
    make.graph = begin
    handle = make.tensor("v", (), kind=schema.TensorType.RESOURCE)
    zeros = make.tensor("zeros", (1, size), np.zeros((1, size), np.float32))
    make.operator(_OPERATORS.VAR_HANDLE, [], [handle], schema.VarHandleOptionsT(container=b"", sharedName=b"v"))
    make.operator(_OPERATORS.ASSIGN_VARIABLE, [handle, zeros], [], schema.AssignVariableOptionsT())
    make.graph = main
    make.model.subgraphs.append(begin)
    make.operator(_OPERATORS.CALL_ONCE, [], [], schema.CallOnceOptionsT(initSubgraphIndex=1))
    x, read, y = (make.tensor(name, (1, size)) for name in ("x", "read", "y"))
    handle = make.tensor("v", (), kind=schema.TensorType.RESOURCE)
    make.operator(_OPERATORS.VAR_HANDLE, [], [handle], schema.VarHandleOptionsT(container=b"", sharedName=b"v"))
    make.operator(_OPERATORS.READ_VARIABLE, [handle], [read], schema.ReadVariableOptionsT())
    make.operator(_OPERATORS.ADD, [x, read], [y], schema.AddOptionsT())
    make.operator(_OPERATORS.ASSIGN_VARIABLE, [handle, y], [], schema.AssignVariableOptionsT())
    make.graph.inputs, make.graph.outputs = [x], [y]
    return make.write(path)


def write_double(path: Path, shape: tuple[int, ...]) -> Path:
    """y = x + x, of a fixed shape and without state."""
    make = _Maker()
    x, y = make.tensor("x", shape), make.tensor("y", shape)
    make.operator(_OPERATORS.ADD, [x, x], [y], schema.AddOptionsT())
    make.graph.inputs, make.graph.outputs = [x], [y]
    return make.write(path)


def write_sum(path: Path, width: int) -> Path:
    """y = a + b + b, of two inputs with the names that converters from TensorFlow give."""
    make = _Maker()
    a, b = (make.tensor(f"serving_default_{name}:0", (1, width)) for name in ("a", "b"))
    one, y = make.tensor("one", (1, width)), make.tensor("y", (1, width))
    make.operator(_OPERATORS.ADD, [a, b], [one], schema.AddOptionsT())
    make.operator(_OPERATORS.ADD, [one, b], [y], schema.AddOptionsT())
    make.graph.inputs, make.graph.outputs = [a, b], [y]
    return make.write(path)

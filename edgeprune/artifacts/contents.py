"""What a model file is made of: enough to say why one file is larger, slower or holds more memory than another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from edgeprune.artifacts.onnx_file import load_onnx
from edgeprune.artifacts.tflite_file import codes_of, load_tflite


@dataclass(frozen=True, slots=True)
class Contents:
    """Bytes of constants (weights, indices, shapes), and how many operators of each type run."""

    constant_bytes: int
    operators: Mapping[str, int]


def onnx_contents(path: Path) -> Contents:
    """What an ONNX file is made of. Raises ExportError where it cannot be read."""
    graph = load_onnx(path).graph
    constants = [*graph.initializer]
    operators: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type == "Constant":
            constants += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        else:
            operators[node.op_type] += 1
    return Contents(sum(numpy_helper.to_array(tensor).nbytes for tensor in constants), operators)


def tflite_contents(path: Path) -> Contents:
    """What a TFLite file is made of. Raises ExportError where it cannot be read."""
    model = load_tflite(path)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    codes = codes_of(model)
    operators: Counter[str] = Counter()
    used = set()
    for graph in model.subgraphs:
        operators.update(names.get(codes[operator.opcodeIndex], "custom") for operator in graph.operators)
        used |= {tensor.buffer for tensor in graph.tensors}
    sizes = (len(model.buffers[index].data) for index in used if model.buffers[index].data is not None)
    return Contents(sum(sizes), operators)

"""Small model files as others make them: weights outside, wrong declarations, odd types, several signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnxruntime
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name: str, kind: int, axes: list[Any] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, axes)


def write_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> Path:
    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def write_ort(model: Path) -> Path:
    """The ONNX file `model` in ONNX Runtime's own format, beside it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(model.with_suffix(".ort"))
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model, options)
    return model.with_suffix(".ort")


def write_external(path: Path, location: str = "weights/w.bin") -> Path:
    """y = x + w, with w (1, 64) in a file of its own."""
    weights = np.arange(64, dtype=np.float32)
    tensor = numpy_helper.from_array(weights[None], "w")
    onnx.external_data_helper.set_external_data(tensor, location, 0, weights.nbytes)
    tensor.ClearField("raw_data")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    both = [value(name, FLOAT, ["n", 64]) for name in "xy"]
    graph = helper.make_graph([node], "g", both[:1], both[1:], [tensor])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    if not location.startswith(("/", "..")):
        (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / location).write_bytes(weights.tobytes())
    return path


def write_signatures(path: Path, names: tuple[str, ...] = ("encode", "decode")) -> Path:
    """A .tflite file of a subgraph and a signature for each name: x + x of (1, 4), (1, 5), ... floats."""
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[schema.OperatorCodeT()], subgraphs=[])
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    model.signatureDefs = []
    for index, name in enumerate(names):
        tensors = [schema.TensorT(name=f"{name}_{end}", shape=[1, 4 + index], buffer=0) for end in ("x", "y")]
        operator = schema.OperatorT(
            inputs=[0, 0],
            outputs=[1],
            builtinOptions=schema.AddOptionsT(),
            builtinOptionsType=schema.BuiltinOptions.AddOptions,
        )
        graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[1], operators=[operator], name=name)
        model.subgraphs.append(graph)
        ends = [[schema.TensorMapT(end, at)] for at, end in enumerate(("in", "out"))]
        model.signatureDefs.append(
            schema.SignatureDefT(inputs=ends[0], outputs=ends[1], signatureKey=name, subgraphIndex=index)
        )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path

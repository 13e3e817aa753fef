"""Real, small model files for tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


def write_mlp(path: Path, widths: tuple[int, ...] = (16, 12, 4), seed: int = 0) -> Path:
    """An MLP of Gemm and Relu with a dynamic batch: (n, widths[0]) -> (n, widths[-1])."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for index, (wide, narrow) in enumerate(pairwise(widths)):
        weight = (random.standard_normal((narrow, wide)) / wide**0.5).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"w{index}")]
        weights += [numpy_helper.from_array(random.standard_normal(narrow).astype(np.float32), f"b{index}")]
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [f"g{index}"], transB=1))
        last = f"g{index}"
        if index < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{index}"]))
            last = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", widths[0]])],
        [helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["n", widths[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def write_onnx(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict | None = None) -> Path:
    """Any small graph; `inputs` and `outputs` are name: (element type, shape), `weights` name: array."""
    infos = [
        [
            helper.make_tensor_value_info(name, kind, shape)
            if isinstance(kind, int)
            else helper.make_value_info(name, kind)
            for name, (kind, shape) in each.items()
        ]
        for each in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph(nodes, "graph", *infos, constants)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def write_endless(path: Path, width: int) -> Path:
    """y = x of (1, width) after a loop that ends where x[0, 0] is not above 0, and otherwise after a long time."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [1, width]),
        ],
        [
            helper.make_tensor_value_info("goes", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1, width]),
        ],
    )
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "axis"], ["first"]),
        helper.make_node("Squeeze", ["first"], ["value"]),
        helper.make_node("Greater", ["value", "limit"], ["ever"]),
        helper.make_node("Loop", ["most", "ever", "x"], ["y"], body=body),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis": np.array([1]),
        "limit": np.float32(0),
        "most": np.int64(2**62),
    }
    float_ = onnx.TensorProto.FLOAT
    return write_onnx(path, nodes, {"x": (float_, [1, width])}, {"y": (float_, [1, width])}, constants)


def mlp_logits(path: Path, images: np.ndarray) -> np.ndarray:
    """What the MLP of `write_mlp` computes, in numpy."""
    weights = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    count = len(weights) // 2
    for index in range(count):
        images = images @ weights[f"w{index}"].T + weights[f"b{index}"]
        if index < count - 1:
            images = np.maximum(images, 0)
    return images

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


def mlp_logits(path: Path, images: np.ndarray) -> np.ndarray:
    """What the MLP of `write_mlp` computes, in numpy."""
    weights = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    count = len(weights) // 2
    for index in range(count):
        images = images @ weights[f"w{index}"].T + weights[f"b{index}"]
        if index < count - 1:
            images = np.maximum(images, 0)
    return images

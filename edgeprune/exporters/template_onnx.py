"""An exported ONNX graph without its weights, and what in it depends on width without being a weight."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from edgeprune.exporters.codes import Atlas, Gather, Ints, Lookup, TemplateError


class OnnxSkeleton:
    """Weights and gather indices as initializers to fill in, depthwise group counts to follow, the rest as exported."""

    def __init__(self, model: onnx.ModelProto, atlas: Atlas) -> None:
        """Takes `model` over. Raises TemplateError where a constant mixes parameters with other numbers."""
        self._model = model
        self._codes: dict[int, Ints] = {}
        self._gathers: dict[int, Gather] = {}
        _free_flattens(model.graph)
        # Shapes of activations are those of the full network; no runtime needs them.
        del model.graph.value_info[:]
        for index, tensor in enumerate(model.graph.initializer):
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and (codes := atlas.codes(array)) is not None:
                self._codes[index] = codes
            elif array.dtype in (np.int32, np.int64) and (gather := atlas.gather(array)) is not None:
                self._gathers[index] = gather
            else:
                continue
            tensor.ClearField("raw_data")
        self._depthwise = self._find_depthwise()

    def fill(self, lookup: Lookup) -> bytes:
        """The candidate's file. Raises TemplateError."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        constants = model.graph.initializer
        for index, codes in self._codes.items():
            array = lookup.cut(codes)
            constants[index].dims[:] = array.shape
            constants[index].raw_data = array.tobytes()
        for index, gather in self._gathers.items():
            features = gather.cut(lookup)
            tensor = constants[index]
            tensor.dims[:] = [len(features) if size == len(gather.features) else size for size in tensor.dims]
            tensor.raw_data = features.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).tobytes()
        for node, attribute, index in self._depthwise:
            model.graph.node[node].attribute[attribute].i = constants[index].dims[0]
        return bytes(model.SerializeToString(deterministic=True))

    def _find_depthwise(self) -> list[tuple[int, int, int]]:
        """(node, its `group` attribute, its weight's initializer) of each convolution with one group per channel."""
        indices = {tensor.name: index for index, tensor in enumerate(self._model.graph.initializer)}
        found = []
        for number, node in enumerate(self._model.graph.node):
            if node.op_type != "Conv":
                continue
            for position, attribute in enumerate(node.attribute):
                if attribute.name != "group" or attribute.i == 1:
                    continue
                weight = indices.get(node.input[1])
                if weight is None or self._model.graph.initializer[weight].dims[0] != attribute.i:
                    raise TemplateError("cannot slice: a grouped convolution that is not depthwise")
                found.append((number, position, weight))
        return found


def _free_flattens(graph: onnx.GraphProto) -> None:
    """Let reshapes that only flatten an image take their width from their input: [-1, 400] becomes [0, -1]."""
    widths = {}
    for value in graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims[1:]):
            widths[value.name] = math.prod(dim.dim_value for dim in dims[1:])
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants or node.input[0] not in widths:
            continue
        target = numpy_helper.to_array(constants[node.input[1]])
        wide = [axis for axis, size in enumerate(target) if axis and size != 1]
        if len(target) < 2 or target[0] != -1 or len(wide) != 1 or target[wide[0]] != widths[node.input[0]]:
            continue
        # 0 copies the batch dimension of the input; only allowzero would take it literally. The constant may be shared.
        free = target.copy()
        free[0], free[wide[0]] = 0, -1
        name = f"{node.output[0]}_shape"
        graph.initializer.append(numpy_helper.from_array(free, name))
        node.input[1] = name
        for attribute in node.attribute:
            if attribute.name == "allowzero":
                attribute.i = 0
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)

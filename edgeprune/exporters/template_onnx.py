"""An exported ONNX graph without its weights, and what in it depends on width without being a weight."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeprune.exporters.codes import Atlas, Coded, Gather, Lookup, Padded, TemplateError, check_padded
from edgeprune.exporters.layouts import convolve_onnx
from edgeprune.exporters.stilled import still_onnx
from edgeprune.exporters.widths import Key, Learnt, Width

_KIND = onnx.AttributeProto.AttributeType
#: Larger constants are tables, which several nodes may share.
_MOST = 4096
#: Attributes that may depend on widths.
_NUMBERS = (_KIND.INT, _KIND.INTS, _KIND.FLOAT, _KIND.FLOATS)


class OnnxSkeleton:
    """Weights and gather indices as initializers to fill in, and attributes that repeat their sizes."""

    def __init__(self, model: onnx.ModelProto, atlas: Atlas) -> None:
        """Takes `model` over. Raises TemplateError where a constant mixes parameters with other numbers."""
        self._model = model
        self._coded: dict[int, Coded] = {}
        self._gathers: dict[int, Gather] = {}
        _free_flattens(model.graph)
        #: How many axes activations have.
        self._ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
        # Shapes of activations are those of the full network; no runtime needs them.
        del model.graph.value_info[:]
        for index, tensor in enumerate(model.graph.initializer):
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and (coded := atlas.coded(array)) is not None:
                self._coded[index] = coded
            elif array.dtype in (np.int32, np.int64) and (gather := atlas.gather(array)) is not None:
                self._gathers[index] = gather
            else:
                continue
            tensor.ClearField("raw_data")
        self._sizes = self._find_sizes()
        self._pads = self._find_pads()
        self._learnt: Learnt | None = None
        #: With it: constants that one node alone reads, by its number and the operand, and the weights in the order in
        #: which they are read.
        self._parted: dict[tuple[int, int], int] = {}
        self._order: list[int] = []

    def learn(self, others: Sequence[OnnxSkeleton]) -> None:
        """Work out what depends on widths from exports at others, which are taken over. Raises TemplateError."""
        self._learnt = Learnt([each._width() for each in (self, *others)])

    def _width(self) -> Width:
        self._part()
        graph, numbers = self._model.graph, dict[Key, NDArray[Any]]()
        constants = {tensor.name: index for index, tensor in enumerate(graph.initializer)}
        # Names and places of constants change with widths: each is known by who reads it first.
        known: dict[str, Hashable] = {each.name: ("input", place) for place, each in enumerate(graph.input)}
        wiring = []
        for number, node in enumerate(graph.node):
            for place, name in enumerate(node.input):
                index = constants.get(name, -1)
                if index in self._coded and name not in known:
                    known[name] = len(self._order)
                    self._order.append(index)
                elif (number, place) in self._parted:
                    numbers[node.op_type, number, place] = numpy_helper.to_array(graph.initializer[index])
            for attribute in node.attribute:
                if attribute.type in _NUMBERS:
                    value = onnx.helper.get_attribute_value(attribute)
                    numbers[node.op_type, number, attribute.name] = np.asarray(value)
            wiring.append((node.op_type, *(known.get(name, "number") for name in node.input)))
            known |= {name: (number, place) for place, name in enumerate(node.output)}
        return Width([self._coded[index].codes.shape for index in self._order], numbers, tuple(wiring))

    def _part(self) -> None:
        """Give every node constants of its own: what is one number at one width may be two at another."""
        graph = self._model.graph
        filled = {*self._coded, *self._gathers, *self._pads}
        shared = {tensor.name: i for i, tensor in enumerate(graph.initializer) if i not in filled}
        for number, node in enumerate(graph.node):
            for place, name in enumerate(node.input):
                if name in shared and math.prod(graph.initializer[shared[name]].dims) <= _MOST:
                    tensor = graph.initializer.add()
                    tensor.CopyFrom(graph.initializer[shared[name]])
                    tensor.name = node.input[place] = f"{name}_{number}_{place}"
                    self._parted[number, place] = len(graph.initializer) - 1
        used = {name for node in graph.node for name in node.input}
        for name, index in shared.items():
            if name not in used:
                # Places in the list are known by their numbers: it stays, with nothing in it.
                graph.initializer[index].CopyFrom(numpy_helper.from_array(np.zeros(0, np.float32), name))

    def fill(self, lookup: Lookup, padded: Padded = ()) -> bytes:
        """The candidate's file. Raises TemplateError."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        constants = model.graph.initializer
        dead = {index for index, coded in self._coded.items() if coded.is_gone(lookup)}
        for index, coded in self._coded.items():
            if index in dead:
                continue
            array = coded.cut(lookup)
            constants[index].dims[:] = array.shape
            constants[index].raw_data = array.tobytes()
        for index, gather in self._gathers.items():
            features = gather.cut(lookup)
            tensor = constants[index]
            tensor.dims[:] = [len(features) if size == len(gather.features) else size for size in tensor.dims]
            tensor.raw_data = features.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).tobytes()
        if self._learnt is not None:
            shapes = [tuple(constants[index].dims) if index not in dead else None for index in self._order]
            for (_, number, which), array in self._learnt.numbers(shapes).items():
                if isinstance(which, int):
                    tensor = constants[self._parted[number, which]]
                    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
                else:
                    node = model.graph.node[number]
                    (attribute,) = (each for each in node.attribute if each.name == which)
                    attribute.CopyFrom(onnx.helper.make_attribute(which, array.tolist()))
        for index, left in zip(self._pads, check_padded([self._padding(i) for i in self._pads], padded), strict=True):
            pads = numpy_helper.to_array(constants[index]).copy()
            pads[[1, len(pads) // 2 + 1]] = left
            constants[index].raw_data = pads.tobytes()
        for each in self._sizes:
            size = constants[each.weight].dims[each.axis] // each.times
            model.graph.node[each.node].attribute[each.attribute].i = size
        if dead:
            alive = {constants[index].name for index in self._coded.keys() - dead}
            still_onnx(model.graph, {constants[index].name for index in dead}, alive, self._ranks)
        if self._pads:
            convolve_onnx(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _find_pads(self) -> list[int]:
        """What pads channels: an initializer of its own for each."""
        graph, found = self._model.graph, []
        for node in graph.node:
            names = [each.name for each in graph.initializer]
            if node.op_type != "Pad" or node.input[1] not in names:
                continue
            index = names.index(node.input[1])
            pads = numpy_helper.to_array(graph.initializer[index])
            if len(pads) > 3 and (pads[1] > 0 or pads[len(pads) // 2 + 1] > 0):
                node.input[1] = f"{node.output[0]}_pads"
                graph.initializer.append(numpy_helper.from_array(pads, node.input[1]))
                found.append(len(graph.initializer) - 1)
        return found

    def _padding(self, index: int) -> tuple[int, int]:
        pads = numpy_helper.to_array(self._model.graph.initializer[index])
        return int(pads[1]), int(pads[len(pads) // 2 + 1])

    def _find_sizes(self) -> list[_Size]:
        """Attributes that repeat the size of a weight: groups of depthwise convolutions, units of recurrent layers."""
        indices = {tensor.name: index for index, tensor in enumerate(self._model.graph.initializer)}
        found = []
        for number, node in enumerate(self._model.graph.node):
            name, operand, axis = _REPEATED.get(node.op_type, ("", 0, 0))
            position = next((i for i, attribute in enumerate(node.attribute) if attribute.name == name), None)
            if position is None:
                continue
            size, weight = node.attribute[position].i, indices.get(node.input[operand])
            if size == 1 and name == "group":
                continue
            if weight is None:
                raise TemplateError(f"cannot slice: the weight of a {node.op_type} is worked out in the file")
            dims = self._model.graph.initializer[weight].dims
            # Convolutions in groups keep their groups, and lose the same places in each.
            if name != "group" or dims[1] == 1:
                found.append(_Size(number, position, weight, axis, dims[axis] // size))
        return found


class _Size(NamedTuple):
    """An attribute of a node that is an axis of a weight, divided by what stays (the multiplier of depthwise ones)."""

    node: int
    attribute: int
    weight: int
    axis: int
    times: int


#: By operation: the attribute, and which operand and axis it repeats.
_REPEATED = {"Conv": ("group", 1, 0), **dict.fromkeys(("LSTM", "GRU", "RNN"), ("hidden_size", 2, 2))}


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

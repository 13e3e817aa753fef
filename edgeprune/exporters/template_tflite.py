"""An exported TFLite graph without its weights, and what in it depends on width without being a weight."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeprune.artifacts.tflite_file import codes_of, drop_unused, pack, unpack
from edgeprune.core.quiet import first_line
from edgeprune.exporters.codes import Atlas, Coded, Gather, Lookup, Padded, TemplateError, check_padded
from edgeprune.exporters.layouts import convolve_tflite
from edgeprune.exporters.stilled import still_tflite
from edgeprune.exporters.widths import Key, Learnt, Width

_OP = schema.BuiltinOperator
_NAMES = {code: name for name, code in vars(_OP).items() if isinstance(code, int)}
_FLOAT, _INTS = schema.TensorType.FLOAT32, {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
#: Constants that may depend on widths, unless they have more bytes than `_MOST`: those are tables.
_PLAIN, _MOST = {**_INTS, _FLOAT: np.float32}, 16384

#: By operation with weights: which operand its bias is, and which axis of the weight (operand 1) has that size.
_BIASES = {
    _OP.CONV_2D: (2, 0),
    _OP.CONV_3D: (2, 4),
    _OP.DEPTHWISE_CONV_2D: (2, 3),
    _OP.FULLY_CONNECTED: (2, 0),
    _OP.TRANSPOSE_CONV: (3, 0),
}


class TfliteSkeleton:
    """Weights and gather indices as buffers to fill in; shapes, which TFLite stores for everything, are worked out.

    The file stores the shape of each activation, and delegates believe it. So a filled file is loaded once without
    delegates, and the shapes that the runtime propagated are written back.
    """

    def __init__(self, model: schema.ModelT, atlas: Atlas) -> None:
        """Takes `model` over. Raises TemplateError where a constant mixes parameters with other numbers."""
        if len(model.subgraphs) != 1:
            raise TemplateError("cannot slice: the TFLite file has several subgraphs")
        self._model = model
        self._graph = graph = model.subgraphs[0]
        self._coded: dict[int, Coded] = {}
        self._gathers: dict[int, Gather] = {}
        for index, tensor in enumerate(graph.tensors):
            if tensor.shapeSignature is not None:
                raise TemplateError("cannot slice: the TFLite file has dynamic shapes")
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data):
                continue
            if tensor.type == _FLOAT and (coded := atlas.coded(data.view(np.float32))) is not None:
                self._coded[index] = Coded(coded.codes.reshape(tensor.shape), coded.added)
            elif tensor.type in _INTS and (gather := atlas.gather(data.view(_INTS[tensor.type]))) is not None:
                self._gathers[index] = gather
        #: Of each reshape with one axis that takes what is left: the tensor with its target, and its output.
        self._reshapes = [self._free(op, axis) for op in graph.operators if (axis := self._wide(op)) is not None]
        self._multipliers = self._find_multipliers()
        self._zeros = self._find_zeros()
        self._targets = self._find_targets()
        self._pads = self._find_pads()
        self._learnt: Learnt | None = None
        #: With it: the weights, in the order in which they are read.
        self._order: list[int] = []

    def learn(self, others: Sequence[TfliteSkeleton]) -> None:
        """Work out what depends on widths from exports at others, which are taken over. Raises TemplateError."""
        self._learnt = Learnt([each._width() for each in (self, *others)])

    def _width(self) -> Width:
        graph, numbers, wiring = self._graph, dict[Key, np.ndarray[Any, Any]](), []
        for target, output in self._reshapes:
            # Which axis takes what is left was a guess.
            tensor, shape = graph.tensors[target], np.array(graph.tensors[output].shape, np.int32)
            self._model.buffers[tensor.buffer] = schema.BufferT(data=shape.view(np.uint8))
        self._reshapes = []
        filled = {*self._coded, *self._gathers}.union(
            *((each[0] for each in found) for found in (self._zeros, self._targets, self._pads))
        )
        known: dict[int, Hashable] = {int(index): ("input", place) for place, index in enumerate(graph.inputs)}
        for number, op in enumerate(graph.operators):
            name, reads = _NAMES.get(self._code(op), "CUSTOM"), list[Hashable]()
            for place, index in enumerate(map(int, op.inputs)):
                data = None if index < 0 else self._model.buffers[graph.tensors[index].buffer].data
                if index in self._coded and index not in known:
                    known[index] = len(self._order)
                    self._order.append(index)
                reads.append(known.get(index, "number"))
                if index not in known and index not in filled and data is not None and 0 < len(data) <= _MOST:
                    # One of its own: what is one number at one width may be two at another.
                    own = graph.tensors[self._own(op, place)]
                    kind, size = own.type, tuple(own.shape if own.shape is not None else ())
                    numbers[name, number, place] = data.view(_PLAIN[kind]).reshape(size) if kind in _PLAIN else data
            options = {} if op.builtinOptions is None else vars(op.builtinOptions)
            for option, value in options.items():
                if isinstance(value, (int, float, list, np.ndarray)) and not isinstance(value, bool):
                    numbers[name, number, option] = np.asarray(value)
            for place, index in enumerate(map(int, op.outputs)):
                # The shapes of what it gives: some kernels compare them with what they find.
                numbers[name, number, ("shape", place)] = np.array(graph.tensors[index].shape, np.int32)
                known[index] = (number, place)
            wiring.append((name, *reads))
        return Width([self._coded[index].codes.shape for index in self._order], numbers, tuple(wiring))

    def fill(self, lookup: Lookup, padded: Padded = ()) -> bytes:
        """The candidate's file. Raises TemplateError."""
        model, graph = copy.copy(self._model), copy.copy(self._graph)
        model.buffers, graph.tensors, graph.operators = [*model.buffers], [*graph.tensors], [*graph.operators]
        model.subgraphs = [graph]

        def put(index: int, array: np.ndarray[Any, Any]) -> None:
            tensor = graph.tensors[index] = copy.copy(graph.tensors[index])
            tensor.shape = np.array(array.shape, np.int32)
            model.buffers[tensor.buffer] = schema.BufferT(data=array.reshape(-1).view(np.uint8))

        dead = {index for index, coded in self._coded.items() if coded.is_gone(lookup)}
        for index, coded in self._coded.items():
            if index not in dead:
                put(index, coded.cut(lookup))
        for index, gather in self._gathers.items():
            tensor = graph.tensors[index]
            shape = [-1 if size == len(gather.features) else size for size in tensor.shape]
            put(index, gather.cut(lookup).astype(_INTS[tensor.type]).reshape(shape))
        for index, weight, axis in self._zeros:
            put(index, np.zeros(graph.tensors[weight].shape[axis], np.float32))
        for index, weight in self._targets:
            target = model.buffers[graph.tensors[index].buffer].data.view(np.int32).copy()
            target[-1] = graph.tensors[weight].shape[0]
            put(index, target)
        for (index, axis), left in zip(
            self._pads, check_padded([self._padding(*each) for each in self._pads], padded), strict=True
        ):
            pads = model.buffers[graph.tensors[index].buffer].data.view(np.int32).copy()
            pads[2 * axis : 2 * axis + 2] = left
            model.buffers[graph.tensors[index].buffer] = schema.BufferT(data=pads.view(np.uint8))
        for number, weight in self._multipliers:
            op = graph.operators[number] = copy.copy(graph.operators[number])
            op.builtinOptions = copy.copy(op.builtinOptions)
            op.builtinOptions.depthMultiplier = int(graph.tensors[weight].shape[-1])
        if self._learnt is not None:
            shapes = [tuple(map(int, graph.tensors[i].shape)) if i not in dead else None for i in self._order]
            for (_, number, which), array in self._learnt.numbers(shapes).items():
                op = graph.operators[number] = copy.copy(graph.operators[number])
                if isinstance(which, int):
                    put(int(op.inputs[which]), array)
                elif isinstance(which, str):
                    op.builtinOptions = copy.copy(op.builtinOptions)
                    setattr(op.builtinOptions, which, array if array.ndim else array.item())
                else:
                    index = int(op.outputs[which[1]])
                    graph.tensors[index] = copy.copy(graph.tensors[index])
                    graph.tensors[index].shape = array
        if dead:
            still_tflite(model, dead, self._coded.keys() - dead)
        if self._learnt is not None:
            drop_unused(model)
        data = pack(model)
        self._settle_shapes(data, graph)
        if not self._pads and not dead:
            return bytes(data)
        model = unpack(bytes(data))
        convolve_tflite(model)
        if dead:
            drop_unused(model)
        return bytes(pack(model))

    def _settle_shapes(self, data: bytearray, graph: schema.SubGraphT) -> None:
        """Write the shapes that the runtime works out into the file `data` of `graph`, in place."""
        try:
            interpreter = Interpreter(
                model_content=bytes(data),
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            interpreter.allocate_tensors()
            details = interpreter.get_tensor_details()
        except Exception as error:  # the runtime's own errors are bare RuntimeErrors and ValueErrors
            raise TemplateError(f"cannot slice: {first_line(error)}") from error
        shapes = {detail["index"]: detail["shape"] for detail in details}
        model = schema.Model.GetRootAs(data, 0)
        written = model.Subgraphs(0)
        for index, tensor in enumerate(graph.tensors):
            stored = written.Tensors(index).ShapeAsNumpy()
            if not len(tensor.shape):
                continue
            if len(stored) != len(shapes[index]):
                raise TemplateError("cannot slice: a tensor changed its rank")
            stored[:] = shapes[index]
        for output, was in zip(graph.outputs, self._graph.outputs, strict=True):
            if not np.array_equal(shapes[output], self._graph.tensors[was].shape):
                raise TemplateError("cannot slice: an output changed its shape")
        for target, output in self._reshapes:
            buffer = model.Buffers(written.Tensors(target).Buffer()).DataAsNumpy()
            buffer.view(np.int32)[:] = shapes[output]

    def _code(self, op: schema.OperatorT) -> int:
        return int(codes_of(self._model)[op.opcodeIndex])

    def _wide(self, op: schema.OperatorT) -> int | None:
        """The axis that a reshape gets its width in: the only one that is not 1, or the last where that is kept."""
        if self._code(op) != _OP.RESHAPE or len(op.inputs) != 2 or op.inputs[0] in self._graph.inputs:
            return None
        tensors = self._graph.tensors
        before, after = tensors[op.inputs[0]].shape, tensors[op.outputs[0]].shape
        wide = [axis for axis, size in enumerate(after) if size != 1]
        if len(wide) == 1 and after[wide[0]] == math.prod(before):
            return wide[0]
        # Words that were looked up, one after the other, become sequences.
        return len(after) - 1 if len(before) and len(wide) > 1 and before[-1] == after[-1] > 1 else None

    def _free(self, op: schema.OperatorT, axis: int) -> tuple[int, int]:
        """Give the reshape its own target constant, with -1 for `axis`; returns (target, output) tensor indices."""
        tensors, buffers = self._graph.tensors, self._model.buffers
        target = np.array(tensors[op.outputs[0]].shape, np.int32)
        target[axis] = -1
        tensor = copy.copy(tensors[op.inputs[1]])
        buffers.append(schema.BufferT(data=target.view(np.uint8)))
        tensor.buffer = len(buffers) - 1
        tensors.append(tensor)
        op.inputs = np.array([op.inputs[0], len(tensors) - 1], np.int32)
        # The option repeats the constant and would keep the full width.
        op.builtinOptions, op.builtinOptionsType = None, schema.BuiltinOptions.NONE
        return len(tensors) - 1, int(op.outputs[0])

    def _find_pads(self) -> list[tuple[int, int]]:
        """What pads channels, and on which axis: a constant of its own for each."""
        tensors, buffers, found = self._graph.tensors, self._model.buffers, []
        for op in self._graph.operators:
            data = buffers[tensors[op.inputs[1]].buffer].data if self._code(op) in (_OP.PAD, _OP.PADV2) else None
            if data is None or tensors[op.inputs[1]].type != schema.TensorType.INT32:
                continue
            pads = data.view(np.int32).reshape(-1, 2)
            # Channels lie last, or second where the converter left them there: images are padded on two axes.
            axes = np.flatnonzero(pads.any(1)).tolist()
            if len(pads) > 2 and axes in ([1], [len(pads) - 1]):
                found.append((self._own(op, 1), axes[0]))
        return found

    def _find_zeros(self) -> list[tuple[int, int, int]]:
        """(bias, weight, the weight's axis of its size) of layers without a bias, which have one of zeros in a file.

        Each gets one of its own: layers of a width share it.
        """
        tensors, buffers, found = self._graph.tensors, self._model.buffers, []
        for op in self._graph.operators:
            place, axis = _BIASES.get(self._code(op), (0, 0))
            if not place or len(op.inputs) <= place or op.inputs[1] not in self._coded:
                continue
            bias = tensors[op.inputs[place]]
            data = buffers[bias.buffer].data
            if op.inputs[place] in self._coded or bias.type != _FLOAT or data is None or np.any(data):
                continue
            found.append((self._own(op, place), int(op.inputs[1]), axis))
        return found

    def _find_targets(self) -> list[tuple[int, int]]:
        """(shape, weight) of transposed convolutions, which are told the shape that they give, channels last."""
        tensors, buffers, found = self._graph.tensors, self._model.buffers, []
        for op in self._graph.operators:
            if self._code(op) != _OP.TRANSPOSE_CONV or op.inputs[1] not in self._coded:
                continue
            if buffers[tensors[op.inputs[0]].buffer].data is not None:
                found.append((self._own(op, 0), int(op.inputs[1])))
        return found

    def _own(self, op: schema.OperatorT, place: int) -> int:
        """Give an operator a constant of its own in the place of one that it may share; its index."""
        tensors, buffers = self._graph.tensors, self._model.buffers
        tensor = copy.copy(tensors[op.inputs[place]])
        buffers.append(schema.BufferT(data=buffers[tensor.buffer].data.copy()))
        tensor.buffer = len(buffers) - 1
        tensors.append(tensor)
        op.inputs = np.array([*op.inputs[:place], len(tensors) - 1, *op.inputs[place + 1 :]], np.int32)
        return len(tensors) - 1

    def _padding(self, index: int, axis: int) -> tuple[int, int]:
        low, high = self._model.buffers[self._graph.tensors[index].buffer].data.view(np.int32)[2 * axis : 2 * axis + 2]
        return int(low), int(high)

    def _find_multipliers(self) -> list[tuple[int, int]]:
        """(operator, weight) of depthwise convolutions of a one-channel input, whose multiplier is their width."""
        found = []
        tensors = self._graph.tensors
        for number, op in enumerate(self._graph.operators):
            if self._code(op) == _OP.DEPTHWISE_CONV_2D:
                if tensors[op.inputs[0]].shape[-1] == 1:
                    found.append((number, int(op.inputs[1])))
                elif op.builtinOptions.depthMultiplier != 1:
                    raise TemplateError("cannot slice: a depthwise convolution with a multiplier")
        return found

"""An exported TFLite graph without its weights, and what in it depends on width without being a weight."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeprune.exporters.codes import Atlas, Gather, Ints, Lookup, TemplateError
from edgeprune.exporters.quiet import first_line
from edgeprune.exporters.tflite import pack

_OP = schema.BuiltinOperator
_FLOAT, _INTS = schema.TensorType.FLOAT32, {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}


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
        self._codes: dict[int, Ints] = {}
        self._gathers: dict[int, Gather] = {}
        for index, tensor in enumerate(graph.tensors):
            if tensor.shapeSignature is not None:
                raise TemplateError("cannot slice: the TFLite file has dynamic shapes")
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data):
                continue
            if tensor.type == _FLOAT and (codes := atlas.codes(data.view(np.float32))) is not None:
                self._codes[index] = codes.reshape(tensor.shape)
            elif tensor.type in _INTS and (gather := atlas.gather(data.view(_INTS[tensor.type]))) is not None:
                self._gathers[index] = gather
        #: Of each reshape that only flattens: the tensor with its target, and its output.
        self._flattens = [self._free(op) for op in graph.operators if self._flattens_only(op)]
        self._multipliers = self._find_multipliers()

    def fill(self, lookup: Lookup) -> bytes:
        """The candidate's file. Raises TemplateError."""
        model, graph = copy.copy(self._model), copy.copy(self._graph)
        model.buffers, graph.tensors, graph.operators = [*model.buffers], [*graph.tensors], [*graph.operators]
        model.subgraphs = [graph]

        def put(index: int, array: np.ndarray[Any, Any]) -> None:
            tensor = graph.tensors[index] = copy.copy(graph.tensors[index])
            tensor.shape = np.array(array.shape, np.int32)
            model.buffers[tensor.buffer] = schema.BufferT(data=array.reshape(-1).view(np.uint8))

        for index, codes in self._codes.items():
            put(index, lookup.cut(codes))
        for index, gather in self._gathers.items():
            tensor = graph.tensors[index]
            shape = [-1 if size == len(gather.features) else size for size in tensor.shape]
            put(index, gather.cut(lookup).astype(_INTS[tensor.type]).reshape(shape))
        for number, weight in self._multipliers:
            op = graph.operators[number] = copy.copy(graph.operators[number])
            op.builtinOptions = copy.copy(op.builtinOptions)
            op.builtinOptions.depthMultiplier = int(graph.tensors[weight].shape[-1])
        data = pack(model)
        self._settle_shapes(data)
        return bytes(data)

    def _settle_shapes(self, data: bytearray) -> None:
        """Write the shapes that the runtime works out into the file `data`, in place."""
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
        graph = model.Subgraphs(0)
        for index, tensor in enumerate(self._graph.tensors):
            stored = graph.Tensors(index).ShapeAsNumpy()
            if not len(tensor.shape):
                continue
            if len(stored) != len(shapes[index]):
                raise TemplateError("cannot slice: a tensor changed its rank")
            stored[:] = shapes[index]
        for output in self._graph.outputs:
            if not np.array_equal(shapes[output], self._graph.tensors[output].shape):
                raise TemplateError("cannot slice: an output changed its shape")
        for target, output in self._flattens:
            buffer = model.Buffers(graph.Tensors(target).Buffer()).DataAsNumpy()
            buffer.view(np.int32)[:] = shapes[output]

    def _code(self, op: schema.OperatorT) -> int:
        entry = self._model.operatorCodes[op.opcodeIndex]
        # Old files keep small codes in the older field.
        return max(int(entry.builtinCode), int(entry.deprecatedBuiltinCode))

    def _flattens_only(self, op: schema.OperatorT) -> bool:
        """Whether `op` is a reshape of one image to a single dimension that is not 1, whatever that dimension is."""
        if self._code(op) != _OP.RESHAPE or len(op.inputs) != 2 or op.inputs[0] in self._graph.inputs:
            return False
        tensors = self._graph.tensors
        target = tensors[op.outputs[0]].shape
        wide = [size for size in target if size != 1]
        return len(wide) == 1 and wide[0] == math.prod(tensors[op.inputs[0]].shape)

    def _free(self, op: schema.OperatorT) -> tuple[int, int]:
        """Give the reshape its own target constant, with -1 for the width; returns (target, output) tensor indices."""
        tensors, buffers = self._graph.tensors, self._model.buffers
        target = np.array([size if size == 1 else -1 for size in tensors[op.outputs[0]].shape], np.int32)
        tensor = copy.copy(tensors[op.inputs[1]])
        buffers.append(schema.BufferT(data=target.view(np.uint8)))
        tensor.buffer = len(buffers) - 1
        tensors.append(tensor)
        op.inputs = np.array([op.inputs[0], len(tensors) - 1], np.int32)
        # The option repeats the constant and would keep the full width.
        op.builtinOptions, op.builtinOptionsType = None, schema.BuiltinOptions.NONE
        return len(tensors) - 1, int(op.outputs[0])

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

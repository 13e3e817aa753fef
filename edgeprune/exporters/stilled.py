"""Sliced files of candidates in which whole branches are constants: what made them goes, what adds them stays."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeprune.artifacts.tflite_file import codes_of
from edgeprune.exporters.codes import TemplateError

_OP = schema.BuiltinOperator
#: Operators with a weight as their second operand and a bias as their third.
_ONNX = ("Conv", "Gemm")
_TFLITE = (_OP.CONV_2D, _OP.CONV_3D, _OP.DEPTHWISE_CONV_2D, _OP.FULLY_CONNECTED)
_RELU = schema.ActivationFunctionType
#: What an operator does to its answer, as limits.
_LIMITS = {_RELU.NONE: (-np.inf, np.inf), _RELU.RELU: (0.0, np.inf), _RELU.RELU6: (0.0, 6.0)}


def still_onnx(graph: onnx.GraphProto, dead: Collection[str], alive: Collection[str], ranks: Mapping[str, int]) -> None:
    """Make constants of what reads the weights `dead`, of which a candidate has nothing, and drop what is for nobody.

    In place. Biases are among the `alive` weights; where there is none the constant is 0. It has as many axes as the
    answer had (`ranks`). Raises TemplateError where a dead weight is read in another way.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [each for each in graph.node if any(name in dead for name in each.input)]:
        if node.op_type not in (*_ONNX, "MatMul"):
            continue
        bias = node.input[2] if node.op_type in _ONNX and len(node.input) > 2 else ""
        answer = node
        if node.op_type == "MatMul":
            # Products without a sum of their own: zeros, to which the next adds.
            readers = [each for each in graph.node if node.output[0] in each.input]
            if len(readers) == 1 and readers[0].op_type == "Add":
                answer = readers[0]
                bias = next((name for name in answer.input if name != node.output[0]), "")
                # What is added is no bias of its own: the sum stays, and zeros are added.
                answer = answer if bias in alive else node
        value = numpy_helper.to_array(constants[bias]) if bias in alive else np.zeros(1, np.float32)
        rank = ranks.get(node.output[0], value.ndim)
        shape = (1, -1, *[1] * (rank - 2)) if node.op_type == "Conv" else (*[1] * (rank - 1), -1)
        graph.initializer.append(numpy_helper.from_array(value.reshape(shape), answer.output[0]))
        graph.node.remove(answer)
    live = {value.name for value in graph.output}
    for node in reversed([*graph.node]):
        if live.isdisjoint(node.output):
            graph.node.remove(node)
            continue
        if not live.union(node.input).isdisjoint(dead):
            raise TemplateError(f"cannot slice: a {node.op_type} needs a branch that is gone")
        live.update(node.input)
    for tensor in [each for each in graph.initializer if each.name not in live]:
        graph.initializer.remove(tensor)


def still_tflite(model: schema.ModelT, dead: Collection[int], alive: Collection[int]) -> None:
    """The same of a TFLite file, where tensors have indices; tensors that nothing reads are left in it."""
    graph, codes, made = model.subgraphs[0], codes_of(model), list[int]()
    for op in [each for each in graph.operators if any(int(index) in dead for index in each.inputs)]:
        if codes[op.opcodeIndex] not in _TFLITE or op.builtinOptions.fusedActivationFunction not in _LIMITS:
            continue
        bias = int(op.inputs[2]) if len(op.inputs) > 2 else -1
        data = model.buffers[graph.tensors[bias].buffer].data if bias in alive else np.zeros(4, np.uint8)
        limits = _LIMITS[op.builtinOptions.fusedActivationFunction]
        value: NDArray[np.float32] = np.clip(data.view(np.float32), *limits).astype(np.float32)
        output = int(op.outputs[0])
        tensor = graph.tensors[output] = schema.TensorT(
            name=graph.tensors[output].name,
            type=graph.tensors[output].type,
            shape=np.array([*[1] * (len(graph.tensors[output].shape) - 1), len(value)], np.int32),
        )
        model.buffers.append(schema.BufferT(data=value.view(np.uint8)))
        tensor.buffer = len(model.buffers) - 1
        graph.operators.remove(op)
        made.append(output)
    _merge(model, made)
    live = {int(index) for index in graph.outputs}
    for op in reversed([*graph.operators]):
        if live.isdisjoint(map(int, op.outputs)):
            graph.operators.remove(op)
            continue
        live.update(map(int, op.inputs))
        if not live.isdisjoint(dead):
            raise TemplateError(f"cannot slice: an operator {codes[op.opcodeIndex]} needs a branch that is gone")


def _merge(model: schema.ModelT, constants: Collection[int]) -> None:
    """Add constants to the bias of the layer whose answer they are added to, as the converter does, where it is theirs
    alone."""
    graph, codes = model.subgraphs[0], codes_of(model)
    for add in [each for each in graph.operators if codes[each.opcodeIndex] == _OP.ADD]:
        ends = [int(index) for index in add.inputs]
        constant = next((index for index in ends if index in constants), -1)
        answer = next((index for index in ends if index != constant), -1)
        readers = sum(answer in map(int, op.inputs) for op in graph.operators) + (answer in map(int, graph.outputs))
        layer = next((op for op in graph.operators if answer in map(int, op.outputs)), None)
        if constant < 0 or layer is None or readers != 1 or codes[layer.opcodeIndex] not in _TFLITE:
            continue
        own = model.buffers[graph.tensors[layer.inputs[2]].buffer].data if len(layer.inputs) > 2 else None
        if own is None or layer.builtinOptions.fusedActivationFunction != _RELU.NONE:
            continue
        added = model.buffers[graph.tensors[constant].buffer].data.view(np.float32)
        bias = copy.copy(graph.tensors[layer.inputs[2]])
        model.buffers.append(schema.BufferT(data=(own.view(np.float32) + added).view(np.uint8)))
        bias.buffer = len(model.buffers) - 1
        graph.tensors.append(bias)
        # What the template holds stays as it is.
        merged = copy.copy(layer)
        merged.inputs = np.array([*layer.inputs[:2], len(graph.tensors) - 1], np.int32)
        merged.outputs, merged.builtinOptions = add.outputs, copy.copy(layer.builtinOptions)
        merged.builtinOptions.fusedActivationFunction = add.builtinOptions.fusedActivationFunction
        graph.operators[graph.operators.index(layer)] = merged
        graph.operators.remove(add)

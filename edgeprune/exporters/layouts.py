"""What a converter writes as it stands in a network, though runtimes then leave the layout of their fast kernels.

Shortcuts without weights (option A of He et al. 2016), every second pixel and zeros for the channels that are new: ONNX
Runtime leaves its blocked layout for them and for all sums behind, and LiteRT's fast kernels know no slices with steps.
A 1x1 convolution of ones and zeros gives the same numbers (docs/decisions/0023-padding-as-a-convolution.md). And means
over all pixels, before which litert-torch brings channels back to the second axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from edgeprune.artifacts.tflite_file import codes_of, drop_unused

_OP = schema.BuiltinOperator
#: Over axes, all the same way.
_REDUCTIONS = (_OP.MEAN, _OP.SUM, _OP.REDUCE_MAX, _OP.REDUCE_MIN)
_DTYPES = {schema.TensorType.INT32: np.int32, schema.TensorType.FLOAT32: np.float32}
#: Axes of an image: (N, C, H, W) in ONNX; TFLite has channels last.
_SIDES = (2, 3)


def convolve_onnx(model: onnx.ModelProto) -> None:
    """Make convolutions of the shortcuts of `model`, in place; a file without them stays as it is."""
    graph = model.graph
    inner = any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute)
    # Bodies of loops and branches may read whatever is around them.
    if inner or not any(node.op_type == "Pad" for node in graph.node):
        return
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = [name for node in graph.node for name in node.input] + [value.name for value in graph.output]
    inferred = shape_inference.infer_shapes(model).graph
    channels = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in (*inferred.value_info, *inferred.input)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and len(value.type.tensor_type.shape.dim) == 4
    }
    before = len(graph.node)
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        gone, source, steps = [pad], pad.input[0], dict[int, int]()
        while (node := makers.get(source)) is not None and readers.count(source) == 1:
            taken = _steps_of(node, constants)
            if taken is None or steps.keys() & taken.keys():
                break
            gone, source, steps = [node, *gone], node.input[0], steps | taken
        sides = _padded_of(pad, constants)
        if sides is None or steps.keys() != {*_SIDES} or not channels.get(source):
            continue
        name = f"{pad.output[0]}_weight"
        graph.initializer.append(numpy_helper.from_array(_picking(channels[source], *sides), name))
        strides = [steps[axis] for axis in _SIDES]
        made = helper.make_node("Conv", [source, name], list(pad.output), kernel_shape=[1, 1], strides=strides)
        graph.node.insert(list(graph.node).index(pad), made)
        for node in gone:
            graph.node.remove(node)
    if len(graph.node) == before:
        return
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(tensor)


def _steps_of(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> dict[int, int] | None:
    """The steps that a slice takes on the axes of an image, from the first place to the last; None: it is none."""
    if node.op_type != "Slice" or len(node.input) != 5 or any(name not in constants for name in node.input[1:]):
        return None
    starts, ends, axes, steps = (constants[name].tolist() for name in node.input[1:])
    whole = not any(starts) and all(end >= np.iinfo(np.int32).max for end in ends)
    taken = dict(zip([axis % 4 for axis in axes], steps, strict=True))
    return taken if whole and taken.keys() <= {*_SIDES} and min(steps) > 0 else None


def _padded_of(pad: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> tuple[int, int] | None:
    """Zeros before and after the channels, some at least; None: something else is padded."""
    more = [name for name in pad.input[2:] if name]
    if pad.input[1] not in constants or any(name not in constants or constants[name].any() for name in more):
        return None
    if any(each.name == "mode" and each.s != b"constant" for each in pad.attribute):
        return None
    pads = constants[pad.input[1]]
    return _sides(pads.reshape(2, -1).T, 1)


def _sides(pads: NDArray[Any], channels: int) -> tuple[int, int] | None:
    """(before, after) on the axis `channels` of `pads` (axes, 2), where nothing else is padded."""
    if pads.shape != (4, 2) or np.flatnonzero(pads.any(1)).tolist() != [channels] or pads.min() < 0:
        return None
    return int(pads[channels, 0]), int(pads[channels, 1])


def _picking(channels: int, before: int, after: int) -> NDArray[np.float32]:
    """Weights (C_out, C_in, 1, 1) that give channel i as channel before + i, and zeros around."""
    weight = np.zeros((before + channels + after, channels, 1, 1), np.float32)
    weight[before + np.arange(channels), np.arange(channels)] = 1
    return weight


def convolve_tflite(model: schema.ModelT) -> None:
    """Make convolutions of the shortcuts of `model`, whose shapes are right, in place; others stay as they are."""
    graph = model.subgraphs[0]
    before = len(graph.operators)
    makers = {int(index): op for op in graph.operators for index in op.outputs}
    readers = [int(index) for op in graph.operators for index in op.inputs] + [int(index) for index in graph.outputs]
    for pad in [op for op in graph.operators if _code(model, op) in (_OP.PAD, _OP.PADV2)]:
        gone, source, steps = [pad], int(pad.inputs[0]), dict[int, int]()
        while (op := makers.get(source)) is not None and readers.count(source) == 1:
            taken = _strides_of(model, graph, op)
            if taken is None or steps.keys() & taken.keys():
                break
            gone, source, steps = [op, *gone], int(op.inputs[0]), steps | taken
        found = [_constant(model, graph, index) for index in pad.inputs[1:]]
        if found[0] is None or any(each is None or each.any() for each in found[1:]):
            continue
        sides, x = _sides(found[0].reshape(-1, 2), 3), graph.tensors[source]
        if sides is None or steps.keys() != {1, 2} or x.type != schema.TensorType.FLOAT32:
            continue
        weight = np.ascontiguousarray(_picking(int(x.shape[3]), *sides).transpose(0, 2, 3, 1))
        name = graph.tensors[pad.outputs[0]].name.decode()
        kernel = _added(model, graph, weight, f"{name}_weight")
        bias = _added(model, graph, np.zeros(len(weight), np.float32), f"{name}_bias")
        made = schema.OperatorT(
            opcodeIndex=_opcode(model),
            inputs=np.array([source, kernel, bias], np.int32),
            outputs=pad.outputs,
            builtinOptionsType=schema.BuiltinOptions.Conv2DOptions,
            builtinOptions=schema.Conv2DOptionsT(
                padding=schema.Padding.VALID, strideH=steps[1], strideW=steps[2], dilationHFactor=1, dilationWFactor=1
            ),
        )
        graph.operators = [made if op is pad else op for op in graph.operators if op is pad or op not in gone]
    if len(graph.operators) < before:
        drop_unused(model)


def _code(model: schema.ModelT, op: schema.OperatorT) -> int:
    return int(codes_of(model)[op.opcodeIndex])


def _opcode(model: schema.ModelT) -> int:
    """The index of convolutions among the operators' codes, where there may be none yet."""
    if _OP.CONV_2D not in codes_of(model):
        model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=_OP.CONV_2D, builtinCode=_OP.CONV_2D))
    return codes_of(model).index(_OP.CONV_2D)


def _added(model: schema.ModelT, graph: schema.SubGraphT, array: NDArray[Any], name: str) -> int:
    """A constant more; its index."""
    model.buffers.append(schema.BufferT(data=array.reshape(-1).view(np.uint8)))
    graph.tensors.append(
        schema.TensorT(
            shape=np.array(array.shape, np.int32), buffer=len(model.buffers) - 1, name=name.encode(),
            type=next(each for each, dtype in _DTYPES.items() if dtype == array.dtype),
        )
    )  # fmt: skip
    return len(graph.tensors) - 1


def _constant(model: schema.ModelT, graph: schema.SubGraphT, index: int) -> NDArray[Any] | None:
    """What a tensor holds, in a row; None: it is worked out."""
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    return None if data is None or tensor.type not in _DTYPES else data.view(_DTYPES[tensor.type])


def _strides_of(model: schema.ModelT, graph: schema.SubGraphT, op: schema.OperatorT) -> dict[int, int] | None:
    """The steps that a slice takes on the axes of an image, from the first place to the last; None: it is none."""
    if _code(model, op) != _OP.STRIDED_SLICE:
        return None
    begin, _, strides = (_constant(model, graph, index) for index in op.inputs[1:])
    before, after = (graph.tensors[index].shape for index in (op.inputs[0], op.outputs[0]))
    if begin is None or strides is None or len(before) != 4 or len(after) != 4 or begin.any() or strides.min() < 1:
        return None
    # All places up to the last, however the end is put.
    if [-(-int(size) // int(step)) for size, step in zip(before, strides, strict=True)] != after.tolist():
        return None
    taken = {axis: int(step) for axis, step in enumerate(strides) if step > 1}
    return taken if taken.keys() <= {1, 2} else None


def reduce_in_place(model: schema.ModelT) -> None:
    """Take means, sums and extremes over axes of a tensor of `model` as it is, not transposed for them; in place."""
    graph = model.subgraphs[0]
    makers = {int(index): op for op in graph.operators for index in op.outputs}
    for op in [each for each in graph.operators if _code(model, each) in _REDUCTIONS]:
        transposed = makers.get(int(op.inputs[0]))
        if transposed is None or _code(model, transposed) != _OP.TRANSPOSE or op.builtinOptions.keepDims:
            continue
        order, axes = _constant(model, graph, transposed.inputs[1]), _constant(model, graph, op.inputs[1])
        if order is None or axes is None:
            continue
        gone = [int(order[axis]) for axis in axes]
        left = [axis for axis in order if axis not in gone]
        # What is left must come in the same order.
        if left == sorted(left):
            name = f"{graph.tensors[op.outputs[0]].name.decode()}_axes"
            op.inputs = np.array([transposed.inputs[0], _added(model, graph, np.array(gone, np.int32), name)], np.int32)
    read = {int(index) for op in graph.operators for index in op.inputs} | {int(index) for index in graph.outputs}
    unread = [op for op in graph.operators if _code(model, op) == _OP.TRANSPOSE and int(op.outputs[0]) not in read]
    if unread:
        graph.operators = [op for op in graph.operators if op not in unread]
        drop_unused(model)

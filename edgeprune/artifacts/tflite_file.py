"""What a TFLite file says of itself, and the flatbuffer read and written as Python objects."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.core.artifact import Artifact, TensorSpec, float_file
from edgeprune.core.errors import ExportError
from edgeprune.core.reading import Source

_IDENTIFIER = b"TFL3"
#: Where the runtime may map the file, constants must start on this boundary (`force_align` in the schema).
_ALIGNMENT = 16
_DTYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that aligns constants as the C++ one does; the generated Python code aligns bytes to 4."""

    def CreateNumpyVector(self, x: np.ndarray[Any, Any]) -> int:  # noqa: N802 - the base class's name
        if x.dtype != np.uint8:
            return int(super().CreateNumpyVector(x))
        self.StartVector(1, x.size, _ALIGNMENT)
        self.head -= x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        self.vectorNumElems = x.size
        return int(self.EndVector())


def pack(model: schema.ModelT) -> bytearray:
    """The model as the bytes of a .tflite file; writable, so that shapes can be corrected in place."""
    constants = sum(len(buffer.data) + 64 for buffer in model.buffers if buffer.data is not None)
    # Room from the start: the builder grows by doubling and copying.
    builder = _Builder(constants + 512 * sum(len(graph.tensors) for graph in model.subgraphs) + 4096)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytearray(builder.Output())


def describe_tflite(path: Path) -> Artifact:
    """Hash, size, inputs and outputs of a TFLite file. Raises ExportError where it is none."""
    model = load_tflite(path)
    with Source(path, ExportError, "export the file again").guarded():
        graph = model.subgraphs[0]
        inputs, outputs = (tuple(_spec(graph.tensors[i]) for i in ends) for ends in (graph.inputs, graph.outputs))
    return float_file(path, "tflite", inputs, outputs)


def tflite_metadata(path: Path) -> bytes | None:
    """Our metadata entry of a TFLite file as JSON text in UTF-8, None where it has none. Raises ExportError."""
    model = load_tflite(path)
    # Entries of a damaged file point anywhere.
    with Source(path, ExportError, "export the file again").guarded():
        for entry in model.metadata or []:
            if entry.name == METADATA_KEY.encode():
                return bytes(model.buffers[entry.buffer].data)
    return None


def load_tflite(path: Path) -> schema.ModelT:
    """The file as the objects of its schema. Raises ExportError where it is not a TFLite model."""
    with Source(path, ExportError, "export or copy the file again", "the TFLite file").guarded():
        data = path.read_bytes()
        if data[4:8] != _IDENTIFIER:
            raise ValueError("it does not begin like one")
        model = unpack(data)
        if not model.subgraphs:
            raise ValueError("it holds no graph")
    return model


def unpack(data: bytes) -> schema.ModelT:
    """The bytes of a file as the objects of its schema, all constants among them.

    A writer may put constants behind the objects, and point at them by their place in the file, which packing moves.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers or []:
        if buffer.offset > 1:
            if buffer.offset + buffer.size > len(data):
                raise ValueError("a constant lies outside of it")
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def codes_of(model: schema.ModelT) -> list[int]:
    """What operators' `opcodeIndex` stands for, members of `schema.BuiltinOperator`."""
    # Old files keep small codes in the older field.
    return [max(int(each.builtinCode), int(each.deprecatedBuiltinCode)) for each in model.operatorCodes]


def drop_unused(model: schema.ModelT) -> None:
    """Take tensors that nothing reads or gives out of the first graph, and make equal constants one, as converters do.

    What the lists of `model` hold is not changed but replaced.
    """
    graph = model.subgraphs[0]
    places, kept = {-1: -1}, list[schema.TensorT]()
    same: dict[tuple[Any, ...], int] = {}
    ends = [graph.inputs, graph.outputs]
    for index in sorted({int(index) for part in (*ends, *_ends_of(graph)) for index in part} - {-1}):
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        key = (index,) if data is None else (tensor.type, tuple(tensor.shape), bytes(data))
        places[index] = same.setdefault(key, len(kept))
        if places[index] == len(kept):
            kept.append(tensor)

    def moved(part: Any) -> np.ndarray[Any, Any]:
        return np.array([places[int(index)] for index in part], np.int32)

    graph.tensors = kept
    graph.inputs, graph.outputs = map(moved, ends)
    graph.operators = [copy.copy(op) for op in graph.operators]
    for op in graph.operators:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
    model.signatureDefs = copy.deepcopy(model.signatureDefs)
    for signature in model.signatureDefs or []:
        for end in (*signature.inputs, *signature.outputs):
            end.tensorIndex = places[end.tensorIndex]
    tensors = (tensor for each in model.subgraphs for tensor in each.tensors)
    read = {0, *(tensor.buffer for tensor in tensors), *(entry.buffer for entry in model.metadata or [])}
    model.buffers = [each if index in read else schema.BufferT() for index, each in enumerate(model.buffers)]


def _ends_of(graph: schema.SubGraphT) -> list[Any]:
    return [part for op in graph.operators for part in (op.inputs, op.outputs)]


def _spec(tensor: schema.TensorT) -> TensorSpec:
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    dims = tuple(None if size < 0 else int(size) for size in shape)
    return TensorSpec(tensor.name.decode(), dims, _DTYPES[tensor.type])

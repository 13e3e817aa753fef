"""ONNX files of another precision, by ONNX Runtime's own tools."""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.artifacts.onnx_file import describe_onnx, load_onnx
from edgeprune.artifacts.running import Array, batches, feeds
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.quiet import converting
from edgeprune.core.runtimes import Precision
from edgeprune.core.temporary import temporary_folder
from edgeprune.core.version import ONNX_IR
from edgeprune.exporters.units import Operator, units_of

#: Products of two matrices gain by dynamic quantisation. Convolutions do not: ONNX Runtime has no fast kernel for them
#: (measured: 7 to 24 times slower).
_PRODUCTS = ("MatMul", "Gemm")
#: What computes nothing, or goes with what it follows: to keep one of them in float32 changes nothing.
_MOVES = frozenset(
    {
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Range",
        "Relu",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    """Inputs as a session takes them, in parts."""

    def __init__(self, inputs: Array, first: str) -> None:
        self._parts: Iterator[dict[str, Array]] = (feeds(part, first) for part in batches(inputs))

    def get_next(self) -> dict[str, Array] | None:
        """The next part, None after the last."""
        return next(self._parts, None)


class CalibratedOnnx:
    """A float32 file with the ranges of its tensors: what int8 files are made from, with all of it in 8 bits or not.

    Weights have 8 bits a channel, symmetric; between the layers are QDQ pairs of 8 bits, with the least and the
    greatest value that `examples` (N, ...) gave.
    """

    def __init__(self, source: Path, examples: Array) -> None:
        self._source, self._examples = source, examples
        graph = load_onnx(source).graph
        self._first = graph.input[0].name
        weights = {each.name for each in graph.initializer}
        self._names = [node.name for node in graph.node]
        known = [Operator(_label(node, weights), tuple(node.input), tuple(node.output)) for node in graph.node]
        #: What may stay in float32, in the order of the file.
        self.units = units_of(known, [each.name for each in graph.input])
        #: ONNX Runtime passes over what it does not know.
        self.refused: tuple[str, ...] = ()
        #: ONNX Runtime's record of the ranges, once they are known.
        self._ranges = b""

    def write(self, path: Path, metadata: Mapping[str, Any], floats: Collection[int] = ()) -> Artifact:
        """The int8 file, whose operators `floats` stay in float32. Raises ExportError, StorageError."""
        with converting("cannot make int8 of the ONNX file"), temporary_folder() as folder:
            made, ranges = folder / "model.onnx", folder / "ranges.json"
            if self._ranges:
                ranges.write_bytes(self._ranges)
            quantize_static(
                self._source,
                made,
                _Examples(self._examples, self._first),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[self._names[index] for index in sorted(floats)],
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=ranges,
            )
            self._ranges = ranges.read_bytes()
            model = onnx.load(made)
        return _written(model, path, metadata)


def quantize_onnx(source: Path, path: Path, precision: Precision, metadata: Mapping[str, Any]) -> Artifact:
    """Write the float32 file `source` to `path` at another precision; inputs and outputs keep their types.

    | precision | weights | between the layers |
    |---|---|---|
    | int8-dynamic | 8 bits, of matrix products alone | 8 bits, ranges found at each inference |
    | fp16 | 16 bits | 16 bits |

    For int8 see `CalibratedOnnx`. Raises ExportError where ONNX Runtime's tools cannot, StorageError.
    """
    with converting(f"cannot make {precision} of the ONNX file"), temporary_folder() as folder:
        if precision == "fp16":
            model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        else:
            if not any(node.op_type in _PRODUCTS for node in load_onnx(source).graph.node):
                raise ExportError(
                    "int8-dynamic is of matrix products, and this network has none", "give --precision int8"
                )
            made = folder / "model.onnx"
            quantize_dynamic(
                source, made, op_types_to_quantize=[*_PRODUCTS], per_channel=True, weight_type=QuantType.QInt8
            )
            model = onnx.load(made)
    return _written(model, path, metadata)


def _written(model: onnx.ModelProto, path: Path, metadata: Mapping[str, Any]) -> Artifact:
    with converting("cannot write the ONNX file"):
        del model.metadata_props[:], model.graph.value_info[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, json.dumps(dict(metadata), sort_keys=True)
        model.ir_version = min(model.ir_version, ONNX_IR)
        data = model.SerializeToString(deterministic=True)
    write_bytes(path, data)
    return describe_onnx(path)


def _label(node: Any, weights: Container[str]) -> str | None:
    """The layer's name, where a weight of its own tells it; else what the operator gives. None of what only moves."""
    if node.op_type in _MOVES or not node.name:
        return None
    own = next((name for name in node.input if name in weights and name.endswith(".weight")), None)
    return str(node.output[0]) if own is None else own.removesuffix(".weight")

"""ONNX files of another precision, by ONNX Runtime's own tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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

from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.runtimes import Precision
from edgeprune.core.temporary import temporary_folder
from edgeprune.core.version import ONNX_IR
from edgeprune.exporters.onnx import METADATA_KEY, describe_onnx, load_onnx
from edgeprune.exporters.quiet import converting
from edgeprune.exporters.running import Array, batches, feeds

#: Products of two matrices gain by dynamic quantisation. Convolutions do not: ONNX Runtime has no fast kernel for them
#: (measured: 7 to 24 times slower).
_PRODUCTS = ("MatMul", "Gemm")


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    """Inputs as a session takes them, in parts."""

    def __init__(self, inputs: Array, first: str) -> None:
        self._parts: Iterator[dict[str, Array]] = (feeds(part, first) for part in batches(inputs))

    def get_next(self) -> dict[str, Array] | None:
        """The next part, None after the last."""
        return next(self._parts, None)


def quantize_onnx(
    source: Path, path: Path, precision: Precision, examples: Array, metadata: Mapping[str, Any]
) -> Artifact:
    """Write the float32 file `source` to `path` at another precision; inputs and outputs keep their types.

    | precision | weights | between the layers |
    |---|---|---|
    | int8 | 8 bits a channel, symmetric | 8 bits, ranges from `examples` (N, ...): QDQ pairs |
    | int8-dynamic | 8 bits, of matrix products alone | 8 bits, ranges found at each inference |
    | fp16 | 16 bits | 16 bits |

    Raises ExportError where ONNX Runtime's tools cannot, StorageError.
    """
    with converting(f"cannot make {precision} of the ONNX file"), temporary_folder() as folder:
        made = folder / "model.onnx"
        if precision == "fp16":
            model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        else:
            if precision == "int8":
                quantize_static(
                    source,
                    made,
                    _Examples(examples, onnx.load(source).graph.input[0].name),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                )
            else:
                if not any(node.op_type in _PRODUCTS for node in load_onnx(source).graph.node):
                    raise ExportError(
                        "int8-dynamic is of matrix products, and this network has none", "give --precision int8"
                    )
                quantize_dynamic(
                    source, made, op_types_to_quantize=[*_PRODUCTS], per_channel=True, weight_type=QuantType.QInt8
                )
            model = onnx.load(made)
        del model.metadata_props[:], model.graph.value_info[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, json.dumps(dict(metadata), sort_keys=True)
        model.ir_version = min(model.ir_version, ONNX_IR)
        data = model.SerializeToString(deterministic=True)
    write_bytes(path, data)
    return describe_onnx(path)

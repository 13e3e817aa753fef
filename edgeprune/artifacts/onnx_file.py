"""What an ONNX file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.core.artifact import Artifact, TensorSpec, float_file
from edgeprune.core.errors import ExportError
from edgeprune.core.reading import Source


def describe_onnx(path: Path) -> Artifact:
    """Hash, size, inputs and outputs of an ONNX file. Raises ExportError where it is none."""
    model = load_onnx(path)
    with Source(path, ExportError, "export the file again").guarded():
        inputs, outputs = tuple(map(_spec, model.graph.input)), tuple(map(_spec, model.graph.output))
    return float_file(path, "onnx", inputs, outputs)


def onnx_metadata(path: Path) -> str | None:
    """Our metadata entry of an ONNX file as JSON text, None where it has none. Raises ExportError."""
    for entry in load_onnx(path).metadata_props:
        if entry.key == METADATA_KEY:
            return str(entry.value)
    return None


def load_onnx(path: Path) -> onnx.ModelProto:
    """The file without its external data. Raises ExportError where it is not an ONNX model."""
    source = Source(path, ExportError, "export or copy the file again", "the ONNX file")
    with source.guarded():
        model = onnx.load(path, load_external_data=False)
    # Protobuf reads an empty file, and some garbage, as an empty model.
    if not model.graph.output:
        raise source.refusal("it holds no graph")
    return model


def _spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(value.name, shape, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))

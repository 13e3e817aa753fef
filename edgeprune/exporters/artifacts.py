"""What a model file says about itself, whichever format it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune.core.errors import ExportError, did_you_mean
from edgeprune.core.types import Artifact, Format
from edgeprune.exporters.onnx import describe_onnx, onnx_metadata
from edgeprune.exporters.tflite import describe_tflite, tflite_metadata

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "tflite": ".tflite"}

_DESCRIBE: dict[Format, Callable[[Path], Artifact]] = {"onnx": describe_onnx, "tflite": describe_tflite}
_METADATA: dict[Format, Callable[[Path], str | None]] = {"onnx": onnx_metadata, "tflite": tflite_metadata}


def describe(path: Path) -> Artifact:
    """The float32 model file `path` as an Artifact. Raises ExportError where it is not what its suffix says."""
    return _DESCRIBE[_format(path)](path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata an exporter of this package put into the file, {} where there is none. Raises ExportError."""
    text = _METADATA[_format(path)](path)
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise ExportError(f"the metadata in {path} is not JSON") from error
    if not isinstance(metadata, dict):
        raise ExportError(f"the metadata in {path} is not a JSON object")
    return metadata


def _format(path: Path) -> Format:
    for format_, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return format_
    raise ExportError(f"{path} is no model file", did_you_mean(path.suffix, SUFFIXES.values()))

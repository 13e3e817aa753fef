"""What a model file says about itself, whichever format it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune.core.errors import ExportError, did_you_mean
from edgeprune.core.types import Artifact, Format
from edgeprune.exporters.metadata import parse_metadata
from edgeprune.exporters.onnx import describe_onnx, onnx_metadata
from edgeprune.exporters.tflite import describe_tflite, tflite_metadata

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "tflite": ".tflite"}

_DESCRIBE: dict[Format, Callable[[Path], Artifact]] = {"onnx": describe_onnx, "tflite": describe_tflite}
_METADATA: dict[Format, Callable[[Path], str | bytes | None]] = {"onnx": onnx_metadata, "tflite": tflite_metadata}


def describe(path: Path) -> Artifact:
    """The float32 model file `path` as an Artifact. Raises ExportError where it is not what its suffix says."""
    return _DESCRIBE[_format(path)](path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata an exporter of this package put into the file, {} where there is none.

    Raises ExportError where the file is not what its suffix says, ModelError for metadata that cannot be.
    """
    text = _METADATA[_format(path)](path)
    return {} if text is None else parse_metadata(text, path)


def _format(path: Path) -> Format:
    for format_, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return format_
    raise ExportError(f"{path} is no model file", did_you_mean(path.suffix, SUFFIXES.values()))

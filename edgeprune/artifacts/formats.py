"""What can be asked of a model file of either format: one row each, and what asks for it by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeprune.artifacts.contents import Contents, onnx_contents, tflite_contents
from edgeprune.artifacts.metadata import parse_metadata
from edgeprune.artifacts.onnx_file import describe_onnx, onnx_metadata
from edgeprune.artifacts.running import Array, run_onnx, run_tflite
from edgeprune.artifacts.tflite_file import describe_tflite, tflite_metadata
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError, did_you_mean
from edgeprune.core.quiet import converting
from edgeprune.core.runtimes import FORMATS, Format


@dataclass(frozen=True, slots=True)
class Reader:
    """A format's row. All raise ExportError where it cannot be done."""

    #: What a float file says of itself.
    describe: Callable[[Path], Artifact]
    #: What we wrote into it, None where nothing is.
    metadata: Callable[[Path], str | bytes | None]
    #: Its constants and operators.
    contents: Callable[[Path], Contents]
    #: Run a file, or its bytes, on inputs (N, ...), here.
    run: Callable[[Path | bytes, Array], Array]


READERS: Mapping[Format, Reader] = MappingProxyType(
    {
        "onnx": Reader(describe_onnx, onnx_metadata, onnx_contents, run_onnx),
        "tflite": Reader(describe_tflite, tflite_metadata, tflite_contents, run_tflite),
    }
)


def describe(path: Path) -> Artifact:
    """The float32 model file `path` as an Artifact. Raises ExportError where it is not what its suffix says."""
    return READERS[_format(path)].describe(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata an exporter of this package put into the file, {} where there is none.

    Raises ExportError where the file is not what its suffix says, ModelError for metadata that cannot be.
    """
    text = READERS[_format(path)].metadata(path)
    return {} if text is None else parse_metadata(text, path)


def run_model(format: Format, model: Path | bytes, inputs: Array) -> Array:
    """Outputs (N, classes) of a model file, or its bytes, for `inputs` (N, ...), by the format's default runtime.

    Raises ExportError where it does not load or does not run.
    """
    inputs = as_input(inputs)
    # Runtimes announce their delegates and devices on standard error.
    with converting(f"the {format} file does not run"):
        return READERS[format].run(model, inputs)


def as_input(inputs: Array) -> Array:
    """Real numbers as float32; integers, and records of several inputs, as they are."""
    return np.ascontiguousarray(inputs, np.float32 if inputs.dtype.kind == "f" else None)


def _format(path: Path) -> Format:
    for row in FORMATS.values():
        if path.suffix == row.suffix:
            return row.name
    suffixes = [row.suffix for row in FORMATS.values()]
    raise ExportError(f"{path} is no model file", did_you_mean(path.suffix, suffixes))

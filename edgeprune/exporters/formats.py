"""What can be done with files of each format: one row each, and what asks for it by a file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError, did_you_mean
from edgeprune.core.runtimes import FORMATS, Format, Precision
from edgeprune.exporters.codes import Atlas, Lookup, Padded
from edgeprune.exporters.contents import Contents, onnx_contents, tflite_contents
from edgeprune.exporters.metadata import parse_metadata
from edgeprune.exporters.onnx import convert_onnx, describe_onnx, export_onnx, onnx_metadata
from edgeprune.exporters.quantize_onnx import quantize_onnx
from edgeprune.exporters.quantize_tflite import quantize_tflite
from edgeprune.exporters.running import Array, run_onnx, run_tflite
from edgeprune.exporters.template_onnx import OnnxSkeleton
from edgeprune.exporters.template_tflite import TfliteSkeleton
from edgeprune.exporters.tflite import convert_tflite, describe_tflite, export_tflite, tflite_metadata
from edgeprune.models.inputs import Inputs


class Skeleton(Protocol):
    """An exported file without its weights."""

    def fill(self, lookup: Lookup, padded: Padded = ()) -> bytes:
        """The candidate's file. Raises TemplateError."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """A format's row. All raise ExportError where it cannot be done."""

    #: Write a network, with an example of its inputs (N, ...) and metadata.
    export: Callable[[nn.Module, Inputs, Path, Mapping[str, Any]], Artifact]
    #: A float32 file at another precision: from, to, which, examples of its inputs (N, ...), and metadata.
    quantize: Callable[[Path, Path, Precision, Array, Mapping[str, Any]], Artifact]
    #: What a float file says of itself.
    describe: Callable[[Path], Artifact]
    #: What we wrote into it, None where nothing is.
    metadata: Callable[[Path], str | bytes | None]
    #: Its constants and operators.
    contents: Callable[[Path], Contents]
    #: Run a file, or its bytes, on inputs (N, ...), here.
    run: Callable[[Path | bytes, Array], Array]
    #: A coded export, from which candidates are sliced (see `template`).
    skeleton: Callable[[nn.Module, Inputs, Atlas], Skeleton]


EXPORTERS: dict[Format, Exporter] = {
    "onnx": Exporter(
        export_onnx,
        quantize_onnx,
        describe_onnx,
        onnx_metadata,
        onnx_contents,
        run_onnx,
        lambda network, example, atlas: OnnxSkeleton(convert_onnx(network, example), atlas),
    ),
    "tflite": Exporter(
        export_tflite,
        quantize_tflite,
        describe_tflite,
        tflite_metadata,
        tflite_contents,
        run_tflite,
        lambda network, example, atlas: TfliteSkeleton(convert_tflite(network, example), atlas),
    ),
}


def export_at(
    source: Artifact, path: Path, precision: Precision, examples: Array, metadata: Mapping[str, Any]
) -> Artifact:
    """A float32 file at another precision, which it says in its metadata; see the format's `quantize`."""
    said = {**metadata, "precision": precision}
    artifact = EXPORTERS[source.format].quantize(source.path, path, precision, examples, said)
    return replace(artifact, precision=precision)


def describe(path: Path) -> Artifact:
    """The float32 model file `path` as an Artifact. Raises ExportError where it is not what its suffix says."""
    return EXPORTERS[_format(path)].describe(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata an exporter of this package put into the file, {} where there is none.

    Raises ExportError where the file is not what its suffix says, ModelError for metadata that cannot be.
    """
    text = EXPORTERS[_format(path)].metadata(path)
    return {} if text is None else parse_metadata(text, path)


def _format(path: Path) -> Format:
    for row in FORMATS.values():
        if path.suffix == row.suffix:
            return row.name
    suffixes = [row.suffix for row in FORMATS.values()]
    raise ExportError(f"{path} is no model file", did_you_mean(path.suffix, suffixes))

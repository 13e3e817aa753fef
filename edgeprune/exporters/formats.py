"""How a network becomes a file of each format: one row each. What is asked of files is in `edgeprune.artifacts`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from edgeprune.artifacts.running import Array
from edgeprune.core.artifact import Artifact
from edgeprune.core.runtimes import Format, Precision
from edgeprune.exporters.codes import Atlas, Lookup, Padded
from edgeprune.exporters.onnx import convert_onnx, export_onnx
from edgeprune.exporters.quantize_onnx import CalibratedOnnx, quantize_onnx
from edgeprune.exporters.quantize_tflite import CalibratedTflite, quantize_tflite
from edgeprune.exporters.template_onnx import OnnxSkeleton
from edgeprune.exporters.template_tflite import TfliteSkeleton
from edgeprune.exporters.tflite import convert_tflite, export_tflite
from edgeprune.exporters.units import Unit
from edgeprune.models.inputs import Inputs


class Skeleton(Protocol):
    """An exported file without its weights."""

    def fill(self, lookup: Lookup, padded: Padded = ()) -> bytes:
        """The candidate's file. Raises TemplateError."""

    def learn(self, others: Sequence[Any]) -> None:
        """Work out what depends on widths from exports at others, skeletons too. Raises TemplateError."""


class Calibrated(Protocol):
    """A float32 file with the ranges of its tensors: what int8 files are made from."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """What of it may stay in float32."""
        ...

    @property
    def refused(self) -> tuple[str, ...]:
        """What stays in float32 in all files written so far, because the quantizer fails at it."""
        ...

    def write(self, path: Path, metadata: Mapping[str, Any], floats: Collection[int] = ()) -> Artifact:
        """The int8 file, of which the operators `floats` stay in float32. Raises ExportError."""
        ...


@dataclass(frozen=True, slots=True)
class Exporter:
    """A format's row. All raise ExportError where it cannot be done."""

    #: Write a network, with an example of its inputs (N, ...) and metadata.
    export: Callable[[nn.Module, Inputs, Path, Mapping[str, Any]], Artifact]
    #: A float32 file at another precision than int8: from, to, which, and metadata.
    quantize: Callable[[Path, Path, Precision, Mapping[str, Any]], Artifact]
    #: A float32 file with the ranges of its tensors on examples of its inputs (N, ...), for int8.
    calibrate: Callable[[Path, Array], Calibrated]
    #: A coded export, from which candidates are sliced (see `template`).
    skeleton: Callable[[nn.Module, Inputs, Atlas], Skeleton]
    #: Whether its converter takes out a batch normalisation's zero mean and variance of one.
    drops_statistics: bool


EXPORTERS: dict[Format, Exporter] = {
    "onnx": Exporter(
        export_onnx,
        quantize_onnx,
        CalibratedOnnx,
        lambda network, example, atlas: OnnxSkeleton(convert_onnx(network, example), atlas),
        drops_statistics=False,
    ),
    "tflite": Exporter(
        export_tflite,
        quantize_tflite,
        CalibratedTflite,
        lambda network, example, atlas: TfliteSkeleton(convert_tflite(network, example), atlas),
        drops_statistics=True,
    ),
}


def export_at(
    source: Artifact, path: Path, precision: Precision, examples: Array, metadata: Mapping[str, Any]
) -> Artifact:
    """A float32 file at another precision, which it says in its metadata; see the format's tools."""
    exporter, said = EXPORTERS[source.format], {**metadata, "precision": precision}
    if precision == "int8":
        return replace(exporter.calibrate(source.path, examples).write(path, said), precision=precision)
    return replace(exporter.quantize(source.path, path, precision, said), precision=precision)

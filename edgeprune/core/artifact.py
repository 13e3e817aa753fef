"""A model file as it ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.files import sha256_file
from edgeprune.core.runtimes import Format, Precision


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape (None where dynamic) and element type of one input or output."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file as it ships."""

    path: Path
    format: Format
    precision: Precision
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def float_file(path: Path, format: Format, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Artifact:
    """The float32 file that lies at `path`: its hash and size are looked up."""
    return Artifact(path, format, "fp32", sha256_file(path), path.stat().st_size, inputs, outputs)


def kind_of(artifact: Artifact) -> str:
    """Its format, and precision where it is not float32: `onnx`, `tflite int8`."""
    return artifact.format if artifact.precision == "fp32" else f"{artifact.format} {artifact.precision}"

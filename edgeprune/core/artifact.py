"""A model file as it ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.runtimes import Format


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
    precision: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

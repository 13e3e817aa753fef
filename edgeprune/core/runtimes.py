"""Formats of model files and the runtimes that run them: one row each, and no other table is keyed by them.

What a format's files are made of is a row of `exporters.formats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Format = Literal["onnx", "tflite"]
RuntimeName = Literal["onnxruntime", "litert"]
#: What a file computes with: 32-bit floats, 16-bit ones, or 8-bit integers, whose ranges are fixed before or found at
#: each inference.
Precision = Literal["fp32", "fp16", "int8", "int8-dynamic"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-dynamic")
#: What stands for all of them, of which the program chooses.
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """A format that networks are exported to."""

    name: Format
    #: For people.
    title: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs files on a device."""

    name: RuntimeName
    #: What networks are exported to for it.
    format: ModelFormat
    #: What pip installs.
    package: str
    #: Ends of the names of files that it opens.
    suffixes: tuple[str, ...]
    #: Widths of convolutions are multiples of it: blocked layouts lose at others (measured: 90 % of ResNet-20's width
    #: is slower than all of it).
    block: int


FORMATS: Mapping[Format, ModelFormat] = MappingProxyType(
    {row.name: row for row in (ModelFormat("onnx", "ONNX", ".onnx"), ModelFormat("tflite", "TFLite", ".tflite"))}
)
RUNTIMES: Mapping[RuntimeName, Runtime] = MappingProxyType(
    {
        row.name: row
        for row in (
            Runtime("onnxruntime", FORMATS["onnx"], "onnxruntime", (".onnx", ".ort"), 8),
            Runtime("litert", FORMATS["tflite"], "ai-edge-litert", (".tflite",), 4),
        )
    }
)


def runtime_for(format: Format) -> Runtime:
    """The runtime that files of `format` are measured with."""
    return next(row for row in RUNTIMES.values() if row.format.name == format)

"""Networks as ONNX and TFLite files: export, metadata, parity with PyTorch, and candidates sliced from a template.

`EXPORTERS` drives the choices of formats everywhere: a format is a key here, its file suffix is in `SUFFIXES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgeprune.core.types import Artifact, Format
from edgeprune.exporters.artifacts import SUFFIXES, describe, read_metadata
from edgeprune.exporters.codes import TemplateError
from edgeprune.exporters.onnx import export_onnx
from edgeprune.exporters.parity import Parity, check_parity, run_model
from edgeprune.exporters.template import Template
from edgeprune.exporters.tflite import export_tflite

Exporter = Callable[[nn.Module, Tensor, Path, Mapping[str, Any]], Artifact]

EXPORTERS: dict[Format, Exporter] = {"onnx": export_onnx, "tflite": export_tflite}

__all__ = [
    "EXPORTERS",
    "SUFFIXES",
    "Exporter",
    "Parity",
    "Template",
    "TemplateError",
    "check_parity",
    "describe",
    "export_onnx",
    "export_tflite",
    "read_metadata",
    "run_model",
]

"""Networks as ONNX and TFLite files: export, parity with PyTorch, and candidates sliced from a template.

`EXPORTERS` drives the choices of formats everywhere: a format is a row of `formats`, and one of `core.runtimes`.
"""

from __future__ import annotations

from edgeprune.exporters.codes import TemplateError
from edgeprune.exporters.formats import EXPORTERS, Exporter, export_at
from edgeprune.exporters.onnx import export_onnx
from edgeprune.exporters.parity import Parity, check_parity
from edgeprune.exporters.template import Template
from edgeprune.exporters.tflite import export_tflite

__all__ = [
    "EXPORTERS",
    "Exporter",
    "Parity",
    "Template",
    "TemplateError",
    "check_parity",
    "export_at",
    "export_onnx",
    "export_tflite",
]

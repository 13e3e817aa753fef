"""Whether a file computes what the network computes: both are run on the same images, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import nn

from edgeprune.core.errors import ExportError
from edgeprune.core.types import Artifact, Format
from edgeprune.exporters.quiet import converting

Array = NDArray[np.float32]
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest absolute difference of any output, and the share of `images` that get the same class, in [0, 1].

    `max_abs` is NaN where an output is: compare with `not max_abs <= allowed`.
    """

    max_abs: float
    agreement: float
    images: int
    #: Largest absolute output of the network, against which `max_abs` is large or small.
    scale: float


def check_parity(network: nn.Module, artifact: Artifact, inputs: Array) -> Parity:
    """Run file and network (a copy, in eval mode) on `inputs` (N, ...) float32, N >= 1.

    Raises ExportError where the file does not load, does not run, or gives outputs of another shape.
    """
    return compare(network, artifact.format, artifact.path, inputs)


def compare(network: nn.Module, format: Format, model: Path | bytes, inputs: Array) -> Parity:
    """`check_parity` for a file or its bytes."""
    if not len(inputs):
        raise ExportError("parity needs at least one image")
    actual = run_model(format, model, inputs)
    reference = deepcopy(network).cpu().float().eval()
    with torch.no_grad():
        batches = [torch.from_numpy(np.ascontiguousarray(batch, np.float32)) for batch in _batches(inputs)]
        expected = torch.cat([reference(batch) for batch in batches]).numpy()
    if actual.shape != expected.shape:
        raise ExportError(f"the {format} file gives outputs {actual.shape}, the network {expected.shape}")
    agreement = float(np.mean(actual.argmax(-1) == expected.argmax(-1)))
    return Parity(float(np.abs(actual - expected).max()), agreement, len(inputs), float(np.abs(expected).max()))


def run_model(format: Format, model: Path | bytes, inputs: Array) -> Array:
    """Outputs (N, classes) of a model file, or its bytes, for `inputs` (N, ...), by the format's default runtime.

    Raises ExportError where it does not load or does not run.
    """
    inputs = np.ascontiguousarray(inputs, np.float32)
    # Runtimes announce their delegates and devices on standard error.
    with converting(f"the {format} file does not run"):
        return _RUNNERS[format](model, inputs)


def _run_onnx(model: Path | bytes, inputs: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in _batches(inputs)])


def _run_tflite(model: Path | bytes, inputs: Array) -> Array:
    source: dict[str, Any] = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
    interpreter = Interpreter(**source, num_threads=1)
    interpreter.allocate_tensors()
    given, wanted = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outputs = []
    for image in inputs:
        interpreter.set_tensor(given, image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(wanted))
    return np.concatenate(outputs)


def _batches(inputs: Array) -> list[Array]:
    return [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]


_RUNNERS: dict[Format, Callable[[Path | bytes, Array], Array]] = {"onnx": _run_onnx, "tflite": _run_tflite}

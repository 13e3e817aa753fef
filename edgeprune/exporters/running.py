"""Files run on this machine, by the runtimes' own Python interfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

Array = NDArray[np.float32]
_BATCH = 256


def run_onnx(model: Path | bytes, inputs: Array) -> Array:
    """Outputs (N, ...) of an ONNX file, or its bytes, for `inputs` (N, ...)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches(inputs)])


def run_tflite(model: Path | bytes, inputs: Array) -> Array:
    """Outputs (N, ...) of a TFLite file, or its bytes, for `inputs` (N, ...), one by one."""
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


def batches(inputs: Array) -> list[Array]:
    """`inputs` (N, ...) in parts that memory holds."""
    return [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]

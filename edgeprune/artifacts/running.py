"""Files run on this machine, by the runtimes' own Python interfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgeprune.core.inputs import fields

#: Numbers (N, ...), or records of several inputs (N,), see `edgeprune.core.inputs`.
Array = NDArray[Any]
_BATCH = 256


def run_onnx(model: Path | bytes, inputs: Array) -> Array:
    """Outputs (N, ...) of an ONNX file, or its bytes, for `inputs` (N, ...); several side by side (N, K)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0].name
    return np.concatenate([_joined(session.run(None, feeds(batch, first))) for batch in batches(inputs)])


def run_tflite(model: Path | bytes, inputs: Array) -> Array:
    """Outputs (N, ...) of a TFLite file, or its bytes, for `inputs` (N, ...), one by one."""
    source: dict[str, Any] = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
    interpreter = Interpreter(**source, num_threads=1)
    interpreter.allocate_tensors()
    wanted = [detail["index"] for detail in interpreter.get_output_details()]
    outputs = []
    for number in range(len(inputs)):
        feed(interpreter, inputs[number : number + 1])
        interpreter.invoke()
        outputs.append(_joined([interpreter.get_tensor(index) for index in wanted]))
    return np.concatenate(outputs)


def feed(interpreter: Interpreter, inputs: Array) -> None:
    """Give a TFLite file its inputs (1, ...)."""
    given = {detail["name"]: detail for detail in interpreter.get_input_details()}
    for name, value in feeds(inputs, next(iter(given))).items():
        # Integers of 64 bits may have become others in the converter's hands; nothing else is converted.
        kind = given[name]["dtype"] if value.dtype == np.int64 else value.dtype
        interpreter.set_tensor(given[name]["index"], value.astype(kind))


def feeds(inputs: Array, first: str) -> dict[str, Array]:
    """What each input is given, by its name in the file; a single one goes to the `first`."""
    if inputs.dtype.names is None:
        return {first: inputs}
    return {name: np.ascontiguousarray(array) for name, array in fields(inputs).items()}


def _joined(outputs: list[Array]) -> Array:
    """The one output (N, ...); several side by side, (N, K)."""
    if len(outputs) == 1:
        return outputs[0]
    return np.concatenate([each.reshape(len(each), -1) for each in outputs], axis=1)


def batches(inputs: Array) -> list[Array]:
    """`inputs` (N, ...) in parts that memory holds."""
    return [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]

"""A Python whose onnxruntime is old: the real one, which refuses files of a later format as release 1.16.3 does."""

from __future__ import annotations

import sys
from pathlib import Path

#: The message is 1.16.3's own, recorded.
_SHIM = """
import onnx, onnxruntime
real = onnxruntime.InferenceSession
onnxruntime.__version__ = "1.16.3"
def session(path, *given, **named):
    version = onnx.load(path).ir_version
    if version > 9:
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(
            "[ONNXRuntimeError] : 1 : FAIL : Load model from %s failed:/onnxruntime_src/onnxruntime/core/graph/"
            "model.cc:149 onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&, const "
            "IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) "
            "Unsupported model IR version: %d, max supported IR version: 9" % (path, version))
    return real(path, *given, **named)
onnxruntime.InferenceSession = session
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def write_old_python(folder: Path) -> Path:
    """A program that runs a script as `python -u SCRIPT` does, with that onnxruntime."""
    (folder / "shim.py").write_text(_SHIM)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -u {folder / "shim.py"} "$@"\n')
    python.chmod(0o755)
    return python

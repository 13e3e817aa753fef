"""What the sessions of several kinds share: plain names, the probe's environment, the runtimes' versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

#: Of every probe: one thread unless the runtime is told otherwise, the same hashes from start to start, no files beside
#: the probe. ONNX Runtime's usage data would be gathered by a thread of its own, which disturbs.
STEADY: Mapping[str, str] = MappingProxyType(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
)
#: The runtimes that a set-up installs.
PINS: Mapping[str, str] = MappingProxyType({"onnxruntime": "1.31.1", "ai-edge-litert": "2.3.0"})


def plain_name(name: str) -> str:
    """`name`. Raises ValueError unless it is a plain file name."""
    if Path(name).name != name or name in {"", ".", ".."} or not name.isprintable():
        raise ValueError(f"not a plain file name: {name!r}")
    return name

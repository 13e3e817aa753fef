"""The smallest model of each runtime: y = relu(x), float32 (1, 4). To find out whether a runtime opens models at all.

Constants, so that asking takes no time to build files; tests/profilers/test_doctor.py says what is in them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType

from edgeprune.core.types import RuntimeName

_ONNX = "CAc6OwoMCgF4EgF5IgRSZWx1EgFnWhMKAXgSDgoMCAESCAoCCAEKAggEYhMKAXkSDgoMCAESCAoCCAEKAggEQgQKABAN"
_TFLITE = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA2AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "NAAAAAQAAADg////CAAAAAwAAAABAAAAeQAAAAIAAAABAAAABAAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAEAAAB4AAAAAgAAAAEAAAAEAAAA"
    "AQAAABAAAAAMAAwACwAAAAAABAAMAAAAEwAAAAAAABM="
)

#: File name and bytes, per runtime.
TINY_MODELS: Mapping[RuntimeName, tuple[str, bytes]] = MappingProxyType(
    {
        "onnxruntime": ("tiny.onnx", base64.b64decode(_ONNX)),
        "litert": ("tiny.tflite", base64.b64decode(_TFLITE)),
    }
)

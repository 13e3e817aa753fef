"""Which version of a runtime opens which file: what to type where a device's runtime refuses one.

An ONNX file states the version of its format (IR version) and of its operators (opset). The releases below are the
first ones that open each. They were measured: every release was given files of IR version 99 and of opset 99, and named
the latest that it opens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

#: The last release that the tables below know of.
LATEST = "1.31"
FIRST_FOR_IR: Mapping[int, str] = MappingProxyType({9: "1.15", 10: "1.18", 11: "1.23", 12: "1.24", 13: "1.24"})
FIRST_FOR_OPSET: Mapping[int, str] = MappingProxyType(
    {19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23", 24: "1.24", 25: "1.24", 26: "1.25"}
)

_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
#: As the probe puts what onnxruntime says in many words.
_OPSET = re.compile(r"Unsupported opset (\d+) of ai\.onnx, max supported opset: (\d+)")
_OLD_LITERT = re.compile(r"Didn't find op for builtin opcode|Op builtin_code out of range")
_CUSTOM_OP = re.compile(r"unresolved custom op: ([\w.:-]+)|Select TensorFlow op|(\S+) is not a registered function/op")


_KINDS = ((_IR, FIRST_FOR_IR, "IR version"), (_OPSET, FIRST_FOR_OPSET, "opset"))


def needed(message: str) -> str | None:
    """The release that opens a file which a runtime refused with this message: "onnxruntime>=1.18"; None: unknown."""
    for pattern, first, _ in _KINDS:
        if (found := pattern.search(message)) and int(found[1]) in first:
            return f"onnxruntime>={first[int(found[1])]}"
    return None


def advice(message: str) -> str:
    """What to type where a runtime refused a file with this message (as the probe gives it); "" where nothing helps."""
    for pattern, _, name in _KINDS:
        if found := pattern.search(message):
            lower = f"export the file with {name} {found[2]} or lower"
            newer = needed(message)
            return f"install {newer} there, or {lower}" if newer else f"no onnxruntime up to {LATEST} opens it: {lower}"
    if _OLD_LITERT.search(message):
        return "install a newer ai-edge-litert there, or give the model as an .onnx file"
    if _CUSTOM_OP.search(message):
        return "the operator is not part of the runtime: export the model without it"
    return ""

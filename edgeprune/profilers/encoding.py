"""Images as values of the type that a model's input has: nothing is cut off or wrapped around unsaid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import ModelError
from edgeprune.profilers.ports import Port

_FLOATS = ("float16", "float32", "float64")
#: Values checked or quantised at once, so that a test set does not need several times its room.
_PART = 1 << 22


def takes_raw(port: Port) -> bool:
    """Whether an input is of integers without a scale, which say nothing of real values."""
    return _integers(port) and not port.scale


def raw_values(x: NDArray[Any], port: Port) -> tuple[NDArray[np.float32], str]:
    """Stored values (N, ...) for an input that `takes_raw`, and in words. Of int8 inputs bytes are shifted by -128."""
    if port.dtype == "int8" and x.dtype == np.uint8:
        return x.astype(np.float32) - np.float32(128), "raw pixels - 128"
    return x.astype(np.float32), "raw pixels" if x.dtype == np.uint8 else "raw values"


def encode(values: NDArray[np.float32], port: Port, what: str) -> tuple[NDArray[Any], float]:
    """Values as an input takes them, and the share of them that lay outside its range and were clipped.

    Floats stay (the runtime's side rounds them). Integers with a scale hold `round(value / scale) + zero`; without one
    the values must be integers in range. `what` names the scaling in messages.

    Raises ModelError for a type that takes no images, and for values that it cannot hold.
    """
    if port.dtype in _FLOATS:
        return values, 0.0
    if not _integers(port):
        raise ModelError(f"input {port.name} takes {port.dtype}, and images are numbers", "convert its type to float32")
    kind = np.dtype("bool" if port.dtype == "bool_" else port.dtype)
    low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    made, flat = np.empty(values.shape, kind), values.reshape(-1)
    clipped, target = 0, made.reshape(-1)
    for first in range(0, flat.size, _PART):
        part = flat[first : first + _PART]
        if port.scale:
            part = np.rint(part.astype(np.float64) / port.scale) + port.zero
            clipped += int(np.sum((part < low) | (part > high)))
            part = np.clip(part, low, high)
        elif (part < low).any() or (part > high).any() or (part != np.rint(part)).any():
            raise ModelError(
                f"input {port.name} takes {kind.name} and has no scale: expected whole numbers from {low} to {high}, "
                f"got {flat.min():g} to {flat.max():g} ({what})",
                _advice(kind, values),
            )
        target[first : first + _PART] = part
    return made, clipped / max(1, flat.size)


def _integers(port: Port) -> bool:
    return port.dtype in ("bool", "bool_") or port.dtype.lstrip("u") in ("int8", "int16", "int32", "int64")


def _advice(kind: np.dtype[Any], values: NDArray[np.float32]) -> str:
    if kind.kind == "b":
        return "such a file takes pixels that are on or off: give data of zeros and ones"
    if values.min() >= 0 and values.max() <= 1:
        return "give the pixels as uint8 in --data, with --preprocessing auto or raw"
    return "use --preprocessing auto or raw"

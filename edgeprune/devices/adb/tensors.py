"""What a .tflite file takes and gives, read from the file itself, and the raw bytes of it.

`benchmark_model` says neither, and takes and writes tensors as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgeprune.devices.channel import ChannelError

_TYPES = {
    getattr(schema.TensorType, name.upper()): name
    for name in ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
}
_LARGEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: dynamic sides are 1. `scale` is 0 where the values are real ones."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero: int = 0
    #: Axes whose sizes the file leaves open.
    open: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def sized(self, given: Sequence[int] | None) -> tuple[int, ...]:
        """Its shape with the sizes `given`. Raises ChannelError("refused") where they do not fit, or one is missing."""
        if given is None:
            missing = [axis for axis in self.open if axis > 0]
            if missing:
                raise ChannelError(
                    "refused", f"input {self.name!r:.80} has an open axis {missing[0]}: give its --shape"
                )
            return self.shape
        fits = len(given) == len(self.shape) and all(
            side > 0 and (axis in self.open or side == self.shape[axis]) for axis, side in enumerate(given)
        )
        if not fits:
            raise ChannelError("refused", f"input {self.name!r:.80} takes {self.shape}, not {tuple(given)!s:.80}")
        return tuple(given)

    @property
    def port(self) -> tuple[str, list[int], str, float, int]:
        """As the probe tells of it: name, shape (-1 where it is open), type, scale (0: none), zero point."""
        shape = [-1 if axis in self.open else side for axis, side in enumerate(self.shape)]
        return self.name, shape, self.dtype, self.scale, self.zero

    def encode(self, rows: NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
        """One batch (B, ...) as this input's shape and bytes. Raises ChannelError("refused") where it does not fit.

        Not (3, 32, 32) as (32, 32, 3), which would only look right. Real values are quantised where there is a scale.
        """
        one = rows[0]
        if self._fits(rows.shape):
            shaped = rows
        elif len(rows) == 1 and self._fits(one.shape):
            shaped = one
        elif len(rows) == 1 and one.size == np.prod(self.shape) and one.ndim != len(self.shape) - 1:
            shaped = one.reshape(self.shape)
        else:
            given = one.shape if len(rows) == 1 else rows.shape
            raise ChannelError("refused", f"an input of shape {given} does not fit the model's {self.shape}")
        kind = np.dtype(self.dtype)
        if self.scale and kind.kind in "iu" and shaped.dtype.kind == "f":
            limits = np.iinfo(kind)
            shaped = np.clip(np.rint(shaped / np.float32(self.scale)) + self.zero, limits.min, limits.max)
        with np.errstate(invalid="ignore", over="ignore"):
            made = shaped.astype(kind)
        if not (np.isfinite(made).all() if kind.kind == "f" else np.array_equal(made, shaped)):
            span = f"values from {shaped.min():g} to {shaped.max():g}"
            raise ChannelError("refused", f"{span} do not fit an input of {kind.name}")
        return shaped.shape, made.tobytes()

    def _fits(self, given: tuple[int, ...]) -> bool:
        return len(given) == len(self.shape) and all(
            axis in self.open or side == self.shape[axis] for axis, side in enumerate(given)
        )

    def decode(self, data: bytes, batch: int = 1) -> NDArray[Any]:
        """This output's bytes, one row an example (batch, n): real values float32, integers without scale int64."""
        values = np.frombuffer(data, self.dtype).reshape(batch, -1)
        if self.scale and values.dtype.kind in "iu":
            return (values.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)
        return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)


@dataclass(frozen=True, slots=True)
class Ends:
    """What one signature of a file, or its first subgraph, takes and gives; and the names of all signatures."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    #: The signature that this is; "" where none names the first subgraph.
    signature: str
    signatures: list[str]
    #: Whether it is the first subgraph, which runs where no signature is asked for.
    first: bool


def tensors(model: bytes, signature: str = "") -> Ends:
    """Inputs and outputs of a .tflite file in its order, under the signature's names where one is given.

    Raises ChannelError("refused") where it is none, or has no such signature.
    """
    try:
        whole = schema.ModelT.InitFromPackedBuf(model, 0)
        signatures = {_text(each.signatureKey): each for each in whole.signatureDefs or ()}
        chosen = signature or next((name for name, each in signatures.items() if each.subgraphIndex == 0), "")
        if signature and signature not in signatures:
            has = f"it has {', '.join(sorted(signatures))[:200]}" if signatures else "it has none"
            raise ChannelError("refused", f"the model has no signature {signature!r:.80}; {has}")
        number = signatures[chosen].subgraphIndex if chosen else 0
        graph = whole.subgraphs[number]
        both = []
        for indices, maps in (
            (graph.inputs, signatures[chosen].inputs if signature else ()),
            (graph.outputs, signatures[chosen].outputs if signature else ()),
        ):
            names = {each.tensorIndex: _text(each.name) for each in maps or ()}
            both.append([_tensor(graph.tensors[index], names.get(index)) for index in indices])
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise ChannelError("refused", f"the model's inputs cannot be read: {str(error)[:100]}") from error
    return Ends(both[0], both[1], chosen, sorted(signatures), number == 0)


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""


def _tensor(tensor: schema.TensorT, called: str | None = None) -> Tensor:
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    shape = tuple(max(1, int(side)) for side in (() if signature is None else signature))
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    zeros = None if quantization is None else quantization.zeroPoint
    scale = float(scales[0]) if scales is not None and len(scales) == 1 else 0.0
    zero = int(zeros[0]) if zeros is not None and len(zeros) == 1 else 0
    name = _text(tensor.name) if called is None else called
    opened = tuple(axis for axis, side in enumerate(() if signature is None else signature) if side < 1)
    found = Tensor(name, shape, _TYPES[tensor.type], scale, zero, opened)
    if found.nbytes > _LARGEST:
        raise ValueError(f"{name} holds {found.nbytes} bytes")
    return found

"""What a .tflite file takes and gives, read from the file itself, and the raw bytes of it.

`benchmark_model` says neither, and takes and writes tensors as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

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

    def encode(self, row: NDArray[np.float32]) -> bytes:
        """One image as this input's bytes. Raises ChannelError("refused") where its shape is another.

        Not (3, 32, 32) as (32, 32, 3), which would only look right.
        """
        flattened = row.size == np.prod(self.shape) and row.ndim != len(self.shape) - 1
        if row.shape != self.shape[1:] and not flattened:
            raise ChannelError("refused", f"an input of shape {row.shape} does not fit the model's {self.shape}")
        kind = np.dtype(self.dtype)
        if self.scale and kind.kind in "iu":
            limits = np.iinfo(kind)
            row = np.clip(np.rint(row / np.float32(self.scale)) + self.zero, limits.min, limits.max)
        return row.astype(kind).tobytes()

    def decode(self, data: bytes) -> NDArray[np.float32]:
        """This output's bytes as real values (n,)."""
        values = np.frombuffer(data, self.dtype)
        real = values.astype(np.float32).reshape(-1)
        if self.scale and values.dtype.kind in "iu":
            return (real - np.float32(self.zero)) * np.float32(self.scale)
        return real


def tensors(model: bytes) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a .tflite file, in its order. Raises ChannelError("refused") where it is none."""
    try:
        graph = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0]
        both = [[_tensor(graph.tensors[index]) for index in indices] for indices in (graph.inputs, graph.outputs)]
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise ChannelError("refused", f"the model's inputs cannot be read: {str(error)[:100]}") from error
    return both[0], both[1]


def _tensor(tensor: schema.TensorT) -> Tensor:
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    shape = tuple(max(1, int(side)) for side in (() if signature is None else signature))
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    zeros = None if quantization is None else quantization.zeroPoint
    scale = float(scales[0]) if scales is not None and len(scales) == 1 else 0.0
    zero = int(zeros[0]) if zeros is not None and len(zeros) == 1 else 0
    name = tensor.name.decode(errors="replace") if tensor.name else ""
    opened = tuple(axis for axis, side in enumerate(() if signature is None else signature) if side < 1)
    found = Tensor(name, shape, _TYPES[tensor.type], scale, zero, opened)
    if found.nbytes > _LARGEST:
        raise ValueError(f"{name} holds {found.nbytes} bytes")
    return found

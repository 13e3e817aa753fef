"""Examples as the bytes that `benchmark_model` reads, and the bytes it writes as rows: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.devices.adb.tensors import Tensor
from edgeprune.devices.channel import ChannelError


@dataclass(frozen=True, slots=True)
class Batches:
    """Examples as bytes for the input `name`, `size` in each batch of `shape`; `count` of them are not filling."""

    name: str
    shape: tuple[int, ...]
    size: int
    count: int
    data: Sequence[bytes]


def batches(take: Tensor, examples: NDArray[Any], size: int) -> Batches:
    """Examples (N, ...) in batches of `size`, the last filled with its last example. Raises ChannelError("refused")."""
    data, shape = [], take.shape
    for first in range(0, len(examples), size):
        part = examples[first : first + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        shape, encoded = take.encode(filled)
        data.append(encoded)
    return Batches(take.name, shape, size, len(examples), data)


def output_bytes(give: Tensor, size: int) -> int:
    """Bytes of one output of a batch of `size`: its open first axis is the batch's."""
    return give.nbytes * (size if 0 in give.open else 1)


def rows(give: Tensor, data: bytes, size: int) -> NDArray[Any]:
    """One output's bytes, a row an example (size, K). Raises ChannelError("refused") without an axis of batches."""
    if size > 1 and 0 not in give.open and give.shape[:1] != (size,):
        raise ChannelError("refused", f"a batch of {size} examples gives an output of shape {give.shape}")
    return give.decode(data, size)


def told(give: Tensor, data: bytes, size: int) -> tuple[str, str, list[int], list[str]]:
    """One output as the probe's op `outputs` tells it: name, numpy's letter of its kind, shape, no keys."""
    shape = [size if axis == 0 and 0 in give.open else side for axis, side in enumerate(give.shape)]
    return give.name, give.decode(data).dtype.kind, shape, []


def named(name: str, gives: Sequence[Tensor]) -> int:
    """Which output has that name; the first where none is given. Raises ChannelError("refused")."""
    names = [each.name for each in gives]
    if name and name not in names:
        raise ChannelError("refused", f"the model has no output {name!r:.80}; it has {', '.join(names)[:200]}")
    return names.index(name) if name else 0

"""Examples as the bytes that `benchmark_model` reads, and the bytes it writes as rows: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.inputs import fields
from edgeprune.devices.adb.tensors import Tensor
from edgeprune.devices.channel import ChannelError


@dataclass(frozen=True, slots=True)
class Batches:
    """Examples as bytes, `size` in each batch; `count` of them are not filling.

    `shapes` of all inputs in the file's order, and `data`: of each batch the bytes of every input.
    """

    shapes: Mapping[str, tuple[int, ...]]
    size: int
    count: int
    data: Sequence[tuple[bytes, ...]]


def batches(takes: Sequence[Tensor], examples: NDArray[Any], size: int, name: str = "") -> Batches:
    """Examples (N, ...), or records of several inputs (N,), in batches of `size`, the last filled with its last one.

    `name` is that of the one input, or empty. Raises ChannelError("refused") unless every input is given.
    """
    given = fields(examples) if examples.dtype.names else {name or takes[0].name: examples}
    if {each.name for each in takes} != set(given):
        own = ", ".join(each.name for each in takes)
        raise ChannelError("refused", f"the model takes {own[:200]}; on a phone all of them must be given at once")
    data, shapes = [], {each.name: each.shape for each in takes}
    for first in range(0, len(examples), size):
        encoded = []
        for take in takes:
            part = given[take.name][first : first + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            shapes[take.name], bytes_ = take.encode(filled)
            encoded.append(bytes_)
        data.append(tuple(encoded))
    return Batches(shapes, size, len(examples), data)


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

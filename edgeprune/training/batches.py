"""From raw arrays to network inputs."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.core.inputs import fields
from edgeprune.core.mapped import on_disk
from edgeprune.data.dataset import EachInput, Preprocessing, Scaled, Split
from edgeprune.models.inputs import Inputs, Several, numel, tensors_of, to_numpy


class Batches:
    """A split as tensors: raw inputs stay as they are stored, each batch is preprocessed when it is taken.

    | name | shape | |
    |---|---|---|
    | `x` | (N, C, H, W), (N, D), or several | raw, as stored |
    | `y` | (N, ...) | targets as in `Split` |
    """

    def __init__(self, split: Split, preprocessing: Scaled) -> None:
        tensors = tuple(map(_usual, fields(split.x).values()))
        self.x: Inputs = tensors[0] if split.x.dtype.names is None else Several(split.x.dtype.names, tensors)
        self.y = torch.from_numpy(split.y)
        self._set(preprocessing)

    def _set(self, preprocessing: Scaled) -> None:
        each = preprocessing.inputs.values() if isinstance(preprocessing, EachInput) else (preprocessing,)
        self._scales = tuple(
            None if one is None else _Scale.of(one, x.ndim) for one, x in zip(each, tensors_of(self.x), strict=True)
        )

    def __len__(self) -> int:
        return len(self.y)

    def scaled(self, preprocessing: Scaled) -> Batches:
        """The same examples in the same memory, preprocessed otherwise."""
        other = copy(self)
        other._set(preprocessing)
        return other

    def reversed(self, limit: int) -> Batches:
        """The first `limit` images with their channels in reverse order: BGR for RGB."""
        other = copy(self)
        assert isinstance(self.x, Tensor)
        other.x, other.y = self.x[:limit].flip(1), self.y[:limit]
        return other

    @property
    def together(self) -> int:
        """How many inputs are handled at once: about as many numbers whatever the size of an image."""
        return max(1, 2_000_000 // numel(self.x))

    def inputs(self, index: Tensor | slice) -> Inputs:
        """Preprocessed inputs (n, ...) float32; integers as they are."""
        if isinstance(self.x, Tensor):
            return _taken(self.x, index, self._scales[0])
        tensors = (_taken(x, index, scale) for x, scale in zip(self.x.tensors, self._scales, strict=True))
        return Several(self.x.names, tuple(tensors))

    def ordered(self, size: int = 500, limit: int | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """(inputs, targets) in the stored order, the first `limit` images."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            index = slice(start, min(start + size, count))
            yield self.inputs(index), self.y[index]


@dataclass(frozen=True, slots=True)
class InParts:
    """The inputs of a split as arrays, preprocessed when a part of them is taken: never all of them at once."""

    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        return to_numpy(self.batches.inputs(part))


@dataclass(frozen=True, slots=True)
class _Scale:
    """A `Preprocessing` as tensors that fit a batch."""

    scale: float
    mean: Tensor
    std: Tensor

    @staticmethod
    def of(preprocessing: Preprocessing, ndim: int) -> _Scale:
        trailing = (1,) * (ndim - 2)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float32).reshape(1, -1, *trailing)
        std = torch.tensor(preprocessing.std, dtype=torch.float32).reshape(1, -1, *trailing)
        return _Scale(preprocessing.scale, mean, std)


def _taken(x: Tensor, index: Tensor | slice, scale: _Scale | None) -> Tensor:
    return x[index] if scale is None else x[index].float().mul(scale.scale).sub_(scale.mean).div_(scale.std)


def _usual(x: NDArray[np.generic]) -> Tensor:
    """A copy with the usual strides: numpy leaves odd ones on axes of length 1, which convolutions take for another
    memory format, and a user's view() then fails on what they return. What lies on disk stays there: its batches are
    copies."""
    given = torch.from_numpy(x)
    if on_disk(x):
        return given
    return torch.empty(given.shape, dtype=given.dtype).copy_(given)

"""From raw arrays to network inputs."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import torch
from torch import Tensor

from edgeprune.data.dataset import Preprocessing, Split


class Batches:
    """A split as tensors: raw inputs stay as they are stored, each batch is preprocessed when it is taken.

    | name | shape | |
    |---|---|---|
    | `x` | (N, C, H, W) or (N, D) | raw, as stored |
    | `y` | (N,) int64 | class indices |
    """

    def __init__(self, split: Split, preprocessing: Preprocessing) -> None:
        # A copy with the usual strides: numpy leaves odd ones on axes of length 1, which convolutions take for another
        # memory format, and a user's view() then fails on what they return.
        self.x = torch.empty(split.x.shape, dtype=torch.from_numpy(split.x[:0]).dtype).copy_(torch.from_numpy(split.x))
        self.y = torch.from_numpy(split.y)
        self._set(preprocessing)

    def _set(self, preprocessing: Preprocessing) -> None:
        self._scale = preprocessing.scale
        trailing = (1,) * (self.x.ndim - 2)
        self._mean = torch.tensor(preprocessing.mean, dtype=torch.float32).reshape(1, -1, *trailing)
        self._std = torch.tensor(preprocessing.std, dtype=torch.float32).reshape(1, -1, *trailing)

    def __len__(self) -> int:
        return len(self.y)

    def scaled(self, preprocessing: Preprocessing) -> Batches:
        """The same examples in the same memory, preprocessed otherwise."""
        other = copy(self)
        other._set(preprocessing)
        return other

    def reversed(self, limit: int) -> Batches:
        """The first `limit` examples with their channels in reverse order: BGR for RGB."""
        other = copy(self)
        other.x, other.y = self.x[:limit].flip(1), self.y[:limit]
        return other

    @property
    def together(self) -> int:
        """How many inputs are handled at once: about as many numbers whatever the size of an image."""
        return max(1, 2_000_000 // self.x[0].numel())

    def inputs(self, index: Tensor | slice) -> Tensor:
        """Preprocessed inputs (n, ...) float32."""
        return self.x[index].float().mul(self._scale).sub_(self._mean).div_(self._std)

    def ordered(self, size: int = 500, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels) in the stored order, the first `limit` images."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            index = slice(start, min(start + size, count))
            yield self.inputs(index), self.y[index]

"""From raw arrays to network inputs: batches, and small random changes of images while training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprune.data.dataset import Preprocessing, Split

#: Images from this size on are moved about while training; smaller ones lose too much of themselves.
SHIFT_FROM = 16


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
        self._scale = preprocessing.scale
        trailing = (1,) * (self.x.ndim - 2)
        self._mean = torch.tensor(preprocessing.mean, dtype=torch.float32).reshape(1, -1, *trailing)
        self._std = torch.tensor(preprocessing.std, dtype=torch.float32).reshape(1, -1, *trailing)

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, index: Tensor | slice) -> Tensor:
        """Preprocessed inputs (n, ...) float32."""
        return (self.x[index].float() * self._scale - self._mean) / self._std

    def ordered(self, size: int = 500, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels) in the stored order, the first `limit` images."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            index = slice(start, min(start + size, count))
            yield self.inputs(index), self.y[index]

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Index batches in random order; a last batch of one image is left out (batch norm cannot use it)."""
        for index in torch.split(torch.randperm(len(self), generator=generator), size):
            if len(index) > 1:
                yield index


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image of (N, C, H, W) by up to an eighth of colour images' or a fourteenth of grey images' height.

    Colour images are also mirrored (photographs; grey ones may be writing). Vectors and images under 16 pixels a side
    come back as they are. A fresh tensor.
    """
    if x.ndim != 4 or min(x.shape[2:]) < SHIFT_FROM:
        return x
    n, channels, height, width = x.shape
    reach = max(1, height // 8) if channels == 3 else max(1, height // 14)
    # Preprocessed inputs: the border is continued, since zero is not "black" after standardising.
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    dy = torch.randint(0, 2 * reach + 1, (n, 1), generator=generator) + torch.arange(height)
    dx = torch.randint(0, 2 * reach + 1, (n, 1), generator=generator) + torch.arange(width)
    if channels == 3:
        mirrored = torch.rand(n, generator=generator) < 0.5
        dx = torch.where(mirrored[:, None], dx.flip(1), dx)
    rows = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], dy[:, :, None], dx[:, None, :]]
    return rows.permute(0, 3, 1, 2).contiguous()

"""What tests of several rooms make by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.pruning.axes.labels import Labelled
from edgeprune.pruning.channels import Graph

#: Of structures that are ranked, refitted and asked, but not cut.
NO_GRAPH = Graph(Labelled({}, {}, {}, np.empty(0, np.int64), (), False, frozenset(), (), frozenset()), {})


class ScaledLayer(nn.Module):
    """As ConvNeXt: a layer over channels that lie last, and a scale a channel behind it.

    The converter makes one layer of both, for whose bias Google's quantizer works out a wrong shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 16, 4, 4), nn.Linear(16, 4)
        self.up, self.down = nn.Linear(16, 96), nn.Linear(96, 16)
        self.scale = nn.Parameter(torch.rand(16, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.scale * self.down(self.up(x.permute(0, 2, 3, 1)).relu())
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))

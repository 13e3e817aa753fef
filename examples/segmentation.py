"""Segmentation, judged by mean IoU: a small U-Net finds bright discs in noise.

edgeprune run --data examples/segmentation.py:data --model examples/segmentation.py:Net --max-latency 0.7x
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def data() -> dict[str, np.ndarray]:
    """Pictures (N, 3, 32, 32), and whether each pixel lies in the disc (N, 32, 32)."""
    rng = np.random.default_rng(0)
    row, column, radius = (rng.uniform(low, high, (400, 1, 1)) for low, high in ((6, 26), (6, 26), (3, 8)))
    y, x = np.mgrid[:32, :32]
    inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
    pictures = (100 + 60 * inside[:, None] + rng.normal(0, 40, (400, 3, 32, 32))).clip(0, 255).astype(np.uint8)
    maps = inside.astype(np.int64)
    return {"x_train": pictures[:320], "y_train": maps[:320], "x_test": pictures[320:], "y_test": maps[320:]}


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU())


class Net(nn.Module):
    """What is seen from afar is joined with what is near."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = _block(3, 16), _block(16, 32), _block(48, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) to logits (N, 2, H, W)."""
        fine = self.down(x)
        coarse = nn.functional.interpolate(self.deep(nn.functional.max_pool2d(fine, 2)), scale_factor=2.0)
        return self.head(self.up(torch.cat([fine, coarse], 1)))

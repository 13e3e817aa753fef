"""Your own network and your own data.

edgeprune run --data examples/own.py:data --model examples/own.py:network --max-latency 0.8x
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn


class Residual(nn.Module):
    """A block whose two paths must keep the same channels: edgeprune finds that out by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in and out."""
        return nn.functional.relu(x + self.body(x))


def network() -> nn.Module:
    """What --model wants: a function that returns the network, untrained (give --weights for trained ones)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        Residual(32),
        nn.MaxPool2d(2),
        Residual(32),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


def data() -> dict[str, NDArray[np.generic]]:
    """What --data wants: a function that returns x_train, y_train, x_test, y_test; images are (N, C, H, W)."""
    digits = load_digits()
    images, labels = digits.images[:, None].astype(np.float32), digits.target
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}

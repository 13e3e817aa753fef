"""Tokens: does a message praise or complain? Words are integers, and a transformer's encoder reads them.

edgeprune run --data examples/tokens.py:data --model examples/tokens.py:Net

Integers of 32 or 64 bits are handed to a network as they are where it takes no fractions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

WORDS, LENGTH = 200, 16


def data() -> dict[str, np.ndarray]:
    """Messages (N, 16) of words 0 to 199, and whether more of them praise (0 to 19) than complain (20 to 39)."""
    x = np.random.default_rng(0).integers(0, 80, (4000, LENGTH))
    y = (((x < 20).sum(1)) > ((x >= 20) & (x < 40)).sum(1)).astype(np.int64)
    return {"x_train": x[:3200], "y_train": y[:3200], "x_test": x[3200:], "y_test": y[3200:]}


class Net(nn.Module):
    """Words and places, one layer of attention, what it found on average."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 32), nn.Parameter(torch.zeros(LENGTH, 32))
        self.encoder = nn.TransformerEncoderLayer(32, 2, dim_feedforward=128, dropout=0.0, batch_first=True)
        self.head = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2)."""
        return self.head(self.encoder(self.words(x) + self.places).mean(1))  # type: ignore[no-any-return]

"""A recurrent network: which machine hums, from 24 readings of 6 features, oldest first.

edgeprune run --data examples/lstm.py:data --model examples/lstm.py:Net --max-latency 0.9x

Inputs are (N, time, features), which the network takes as they are given. Units of the LSTM go as channels do.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn


def data() -> dict[str, np.ndarray]:
    """Sequences (N, 24, 6), and one of four machines (N,)."""
    rng = np.random.default_rng(0)
    machine = rng.integers(0, 4, 2400)
    hum = np.sin(np.arange(24) * (0.4 + 0.3 * machine[:, None]) + rng.uniform(0, 6, (2400, 1)))
    x = (hum[:, :, None] * rng.uniform(0.5, 1, (2400, 1, 6)) + rng.normal(0, 0.3, (2400, 24, 6))).astype(np.float32)
    return {"x_train": x[:2000], "y_train": machine[:2000], "x_test": x[2000:], "y_test": machine[2000:]}


class Net(nn.Module):
    """An LSTM, and a head of two layers that reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 32, batch_first=True)
        self.head = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 4)."""
        return self.head(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]

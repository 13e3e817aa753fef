"""Two inputs: what somebody is doing, from a motion sensor and a pulse that is taken at another pace.

edgeprune run --data examples/two_sensors.py:data --model examples/two_sensors.py:Net --max-latency 0.7x

Inputs are given by name, and forward takes them by these names; the files' inputs are called so, too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def data() -> dict[str, object]:
    """Inputs motion (N, 3, 64) and pulse (N, 1, 16), and one of three classes (N,)."""
    rng = np.random.default_rng(0)
    doing = rng.integers(0, 3, 2400)
    steps = np.sin(np.arange(64) * 0.4) * (doing == 1)[:, None]
    motion = rng.normal(size=(2400, 3, 64)) + steps[:, None]
    pulse = rng.normal(70, 8, (2400, 1, 16)) + 25 * (doing == 2)[:, None, None]
    x = {"motion": motion.astype(np.float32), "pulse": pulse.astype(np.float32)}
    train, test = ({name: each[part] for name, each in x.items()} for part in (slice(2000), slice(2000, None)))
    return {"x_train": train, "y_train": doing[:2000], "x_test": test, "y_test": doing[2000:]}


class Net(nn.Module):
    """A convolution for each sensor, then what both found on average."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(nn.Conv1d(3, 64, 5), nn.ReLU(), nn.Conv1d(64, 64, 5), nn.ReLU())
        self.beats = nn.Sequential(nn.Conv1d(1, 32, 3), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, motion: Tensor, pulse: Tensor) -> Tensor:
        """Logits (N, 3)."""
        return self.head(torch.cat([self.steps(motion).mean(2), self.beats(pulse).mean(2)], 1))  # type: ignore[no-any-return]

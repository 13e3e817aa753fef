"""Regression: how many cycles an engine has left, from the last 30 readings of 14 sensors (as NASA's C-MAPSS has it).

edgeprune run --data examples/remaining_life.py:data --model examples/remaining_life.py:network --max-latency 0.7x

Targets are floats in cycles, so the task is a regression: its error is told in cycles, and --max-drop 5% lets it grow
by a twentieth.
"""

from __future__ import annotations

import numpy as np
from torch import nn


def data() -> dict[str, np.ndarray]:
    """Windows (N, 14, 30), and cycles left (N,)."""
    rng = np.random.default_rng(0)
    worn = rng.uniform(0, 1, 2400)
    cycles = np.arange(30)
    # Each sensor drifts at its own pace as the engine wears; all are noisy.
    pace, noise = rng.normal(size=14), rng.normal(0, 0.3, (2400, 14, 30))
    x = (pace[:, None] * (worn[:, None, None] + cycles / 300) ** 2 + noise).astype(np.float32)
    y = (125 * (1 - worn)).astype(np.float32)
    return {"x_train": x[:2000], "y_train": y[:2000], "x_test": x[2000:], "y_test": y[2000:]}


def network() -> nn.Module:
    """Two convolutions over time, then what they found on average."""
    return nn.Sequential(
        *(nn.Conv1d(14, 64, 5, padding=2), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Conv1d(64, 64, 5, padding=2), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)),
    )

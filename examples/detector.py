"""A one-shot detector with a loss and a score of its own: where is the bright square, and how sure is that?

edgeprune run --data examples/detector.py:data --model examples/detector.py:Net --task examples/detector.py:Detection \
    --max-latency 0.7x --max-drop 2

Targets are dicts, as detectors have them; the network answers with two tensors, and so do the files.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F


def data() -> dict[str, object]:
    """Images (N, 1, 24, 24); of each a dict: a box (x, y, width, height) in shares of a side, and if it is there."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 0.2, (1500, 1, 24, 24)).astype(np.float32), []
    for image in x:
        (left, top), size, there = rng.integers(0, 14, 2), int(rng.integers(5, 10)), rng.random() < 0.8
        image[0, top : top + size, left : left + size] += there
        y.append({"box": np.array([left, top, size, size], np.float32) / 24, "there": np.float32(there)})
    return {"x_train": x[:1200], "y_train": y[:1200], "x_test": x[1200:], "y_test": y[1200:]}


class Net(nn.Module):
    """Three convolutions, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 32), (32, 32), (32, 64))
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(*each, 3, 2, 1), nn.ReLU()) for each in sizes), nn.Flatten()
        )
        self.box, self.there = nn.Linear(64 * 9, 4), nn.Linear(64 * 9, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Boxes (N, 4), and logits (N, 1) of there being one."""
        seen = self.body(x)
        return {"box": self.box(seen), "there": self.there(seen)}


class Detection:
    """What is learnt, and how it is judged."""

    better = "higher"

    def loss(self, output: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        """Where the square is, where there is one; and whether there is one."""
        there = target["there"].reshape(-1, 1)
        off = F.smooth_l1_loss(output["box"] * there, target["box"] * there)
        return 20 * off + F.binary_cross_entropy_with_logits(output["there"], there)

    def score(self, output: dict[str, np.ndarray], target: dict[str, np.ndarray]) -> float:
        """Intersection over union, a mean; 0 or 1 where a square is missed, made up, or rightly not seen."""
        (a, b), there = (output["box"], target["box"]), target["there"].reshape(-1) > 0.5
        low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        both = np.clip(high - low, 0, None).prod(1)
        union = np.clip(a[:, 2:], 0, None).prod(1) + b[:, 2:].prod(1) - both
        seen = output["there"].reshape(-1) > 0
        return float(np.where(there, seen * both / np.maximum(union, 1e-9), ~seen).mean())

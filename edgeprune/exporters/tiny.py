"""The small models that `edgeprune devices check` opens on a device, written as every other file is.

They are kept in the package, since checking a device must not load torch. After a change of what exporters write, type
`python -m edgeprune.exporters.tiny`; a test says when that is due.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgeprune.exporters import EXPORTERS

#: Where the package keeps them.
KEPT = Path(__file__).parents[1] / "profilers"


def write_tiny_models(folder: Path) -> None:
    """Write tiny.onnx and tiny.tflite: images (1, 4, 4) to 3 logits. Raises ExportError, StorageError."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8, 3),
        ).eval()
    for kind, row in EXPORTERS.items():
        row.export(network, torch.zeros(2, 1, 4, 4), folder / f"tiny.{kind}", {})


if __name__ == "__main__":
    write_tiny_models(KEPT)

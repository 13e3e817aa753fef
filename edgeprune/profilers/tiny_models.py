"""A small model of each runtime, written by this version's exporters: does a runtime open what a run would send it?

Kept as files, so that asking loads no converter. `edgeprune.exporters.tiny` writes them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edgeprune.core.runtimes import RUNTIMES, RuntimeName

_HERE = Path(__file__).parent

#: The file of each runtime: float32 images (1, 1, 4, 4) to logits (1, 3).
TINY_MODELS: Mapping[RuntimeName, Path] = MappingProxyType(
    {name: _HERE / f"tiny{row.format.suffix}" for name, row in RUNTIMES.items()}
)

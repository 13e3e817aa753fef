"""Where the files of a `bench conv` are.

FOLDER/
├── .lock, .owner                              who writes here now (see `core.lock`)
├── bench.json                                 settings of each network; a folder holds one choice of them
├── cells/NETWORK@BOUND-METHOD-S.json          a finished search
├── finished/NETWORK-KEY-S.json                a plan that was fine-tuned, judged on the test set and raced
├── families/NETWORK.json                      what narrower networks of the family cost
└── networks/NETWORK-S/                        the unpruned network of seed S; scores and seconds of all its plans
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.papers.conv.pace import Part


@dataclass(frozen=True, slots=True)
class ConvFolder:
    """The files of one bench, by what they are of."""

    path: Path

    @property
    def header(self) -> Path:
        """The settings."""
        return self.path / "bench.json"

    def cell(self, part: Part) -> Path:
        """What a search found; a part that finishes it has the same."""
        return self.path / "cells" / f"{part.network}@{part.bound:g}-{part.method}-{part.seed}.json"

    def finished(self, network: str, key: str, seed: int) -> Path:
        """What became of a plan."""
        return self.path / "finished" / f"{network}-{key}-{seed}.json"

    def family(self, network: str) -> Path:
        """What narrower networks of its family keep."""
        return self.path / "families" / f"{network}.json"

    def network(self, network: str, seed: int) -> Path:
        """A folder: the unpruned network's."""
        return self.path / "networks" / f"{network}-{seed}"

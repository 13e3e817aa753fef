"""How a record names its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights beside the one that names it."""

    file: str
    sha256: str

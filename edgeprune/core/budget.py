"""What is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Whether a figure keeps its bound; "open": the measurement cannot tell it apart from the bound.
Answer = Literal["met", "not met", "open"]


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound: absolute in `unit`, or `relative` to the unpruned network on the same device."""

    value: float
    relative: bool = False
    unit: Literal["s", "instructions", "bytes"] = "s"

    def limit(self, baseline: float) -> float:
        """The bound as an absolute figure, given the baseline's."""
        return self.value * baseline if self.relative else self.value


@dataclass(frozen=True, slots=True)
class Budget:
    """What the user asks for. None: no bound."""

    max_latency: Bound | None = None
    max_memory: Bound | None = None
    max_bytes: Bound | None = None
    #: What may be lost of quality: points of a share, else percent by which the error may grow (`relative_drop`).
    max_drop: float | None = None
    min_ncr: float | None = None
    relative_drop: bool = False

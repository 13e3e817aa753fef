"""What is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Whether a figure keeps its bound; "open": the measurement cannot tell it apart from the bound.
Answer = Literal["met", "not met", "open"]
#: What answers are judged by: the share that is right, or the mean of that share over the classes.
MetricName = Literal["accuracy", "balanced-accuracy"]


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
    #: Points of accuracy that may be lost.
    max_drop: float | None = None
    min_ncr: float | None = None

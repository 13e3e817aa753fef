"""Of `result.json`: which runtime, with how many threads, is measured, where the program was to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeprune.core.kinds import Unit
from edgeprune.core.runtimes import Precision, RuntimeName
from edgeprune.pipeline.records.figures import Count, Ends

Choice = Literal["runtime", "threads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedBackend:
    """What an inference of the unpruned network takes by one runtime; None where it could not be had."""

    runtime: RuntimeName
    #: None where not even one number of them could be tried.
    threads: Count | None
    precision: Precision
    latency: float | None = None
    #: The 95 % interval of that.
    interval: Ends | None = None
    unit: Unit = "s"
    #: Why it could not be had; "" where it could.
    why: str = ""

    def __post_init__(self) -> None:
        if (self.latency is None) != (self.interval is None):
            raise ValueError("expected a latency with its interval, or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenBackend:
    """The choice, and all that it was made from."""

    runtime: RuntimeName
    threads: Count
    #: Which of both were left to choose; the other was given.
    chosen: tuple[Choice, ...]
    timed: tuple[TimedBackend, ...]

"""A measurement that is made up: what a file costs is what a function says, and it may fail on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeprune.core.measurement import Failure, Measurement, MeasureSettings

#: Of a file, as a share of the unpruned network's.
CostOf = Callable[[Path], float]
#: What the unpruned network takes, and holds.
BASELINE_S, BASELINE_BYTES = 2e-3, 10_000


def cost(
    share: float, *, verdict: str = "stable", processes: int = 0, scatter: float = 0.0, memory: float | None = None
) -> Measurement:
    """A cost of `share` of the unpruned network's; in fresh `processes` it scatters by so much to either side."""
    count = max(processes, 1)
    factors = [1 + scatter * (2 * index / max(count - 1, 1) - 1) for index in range(count)]
    samples = tuple(BASELINE_S * share * factor for factor in factors for _ in range(4))
    return Measurement(
        unit="s",
        samples=samples,
        warmups=(),
        against=(BASELINE_S,) * len(samples),
        peak_bytes=int(BASELINE_BYTES * (share if memory is None else memory)),
        against_peak_bytes=BASELINE_BYTES,
        memory_method="made up",
        sha256="",
        against_sha256="",
        device="fake",
        facts={},
        settings=MeasureSettings("onnxruntime", processes=processes),
        process=tuple(index for index in range(count) for _ in range(4)),
        verdict=verdict,
    )


class FakeProfiler:
    """Stands where `LoopProfiler` does: a cost by the file's size, or what `outcomes` have next."""

    def __init__(self, cost_of: CostOf, outcomes: Iterator[Measurement | Failure] | None = None) -> None:
        self.cost_of, self.outcomes = cost_of, outcomes
        #: Every file that was measured, by its size.
        self.sizes: list[int] = []
        self.closed, self.abandoned = 0, False
        self.device_seconds = 0.5

    def measure(self, candidate: Path) -> Measurement | Failure:
        self.sizes.append(candidate.stat().st_size)
        if self.outcomes is not None and (given := next(self.outcomes, None)) is not None:
            return given
        return cost(self.cost_of(candidate))

    def runtime_facts(self) -> dict[str, Any]:
        return {"machine": "fake"}

    def close(self) -> None:
        self.closed += 1

    def abandon(self) -> None:
        self.abandoned = True

    def __enter__(self) -> FakeProfiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

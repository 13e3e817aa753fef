"""What a file costs on a device: how that is measured, what came of it, and failures, which are values too."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeprune.core.budget import Bound
from edgeprune.core.kinds import Unit
from edgeprune.core.runtimes import RuntimeName

#: refused: the runtime there cannot open or run the model. crashed: the process ended or the request raised there.
#: killed: the system ended it, mostly out of memory. timeout: the deadline passed. garbled: the answer is no line of
#: JSON of a sane size, or holds what cannot be. lost: the link or the device is gone. full: no room on the device.
#: busy: another program holds the device.
FailureKind = Literal["refused", "crashed", "killed", "timeout", "garbled", "lost", "full", "busy"]
Verdict = Literal["", "stable", "noisy", "throttled", "busy"]


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How a measurement is made; kept with it, since only measurements made alike may be compared."""

    runtime: RuntimeName
    threads: int = 1
    #: Runs thrown away first, at least this many and at least this long.
    warmup_runs: int = 10
    warmup_s: float = 0.05
    #: Interleaved rounds per process (fewer for slow models); each gives one sample for baseline and candidate: the
    #: mean of two blocks' medians.
    rounds: int = 11
    #: A round lasts at least this long and holds at least `min_runs` runs.
    round_s: float = 0.006
    min_runs: int = 5
    #: Fresh processes; 0 means one living probe process that serves many candidates.
    processes: int = 0
    #: Fresh processes are added until the 95 % interval (of the quotient, or of one latency) is at most this share
    #: of it to either side, or `max_s` seconds are spent. 0: exactly `processes`.
    half_width: float = 0.0
    #: Or until the interval lies wholly on one side of this bound (relative: the interval of the quotient; absolute: of
    #: the candidate's own latency), or `max_s` seconds are spent. None: whatever side it lies on.
    until_off: Bound | None = None
    max_s: float = 0.0
    #: Before each process, wait until the hottest sensor is at or below this many degrees Celsius. None: do not wait.
    cool_below_c: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a file cost on a device, raw samples kept.

    `samples[i]` and `against[i]` were taken in the same round, of the candidate and of the baseline.

    Raises ValueError for samples that do not pair, or are not finite and above 0.
    """

    unit: Unit
    samples: tuple[float, ...]
    warmups: tuple[float, ...]
    #: The baseline's samples of the same rounds.
    against: tuple[float, ...]
    #: Heap the model holds: highest mallinfo2 reading after load and first inference, above the warmed-up runtime.
    peak_bytes: int
    against_peak_bytes: int
    #: How memory was read: "mallinfo2"; "vmhwm" where the C library has no mallinfo2; "benchmark_model": the
    #: footprint of its process, runtime included.
    memory_method: str
    sha256: str
    against_sha256: str
    device: str
    facts: Mapping[str, Any]
    settings: MeasureSettings
    #: Index of the fresh process each sample came from (all 0 with one living process).
    process: tuple[int, ...] = ()
    load_s: float | None = None
    first_s: float | None = None
    #: Size of the candidate's file.
    bytes: int = 0
    #: What the device said of itself before and after each process's race (see `state` of the probe).
    states: tuple[Mapping[str, Any], ...] = ()
    #: How far to trust the figure, and what to do about it; "" where it was not judged.
    verdict: Verdict = ""
    advice: str = ""
    #: Races thrown away because the device was throttled or busy while they ran.
    rejected: int = 0

    def __post_init__(self) -> None:
        # Read back from a damaged file, other figures would make quotients that mean nothing.
        if not self.samples or len(self.samples) != len(self.against):
            raise ValueError(f"expected pairs of samples, got {len(self.samples)} and {len(self.against)}")
        if not all(math.isfinite(sample) and sample > 0 for sample in (*self.samples, *self.against)):
            raise ValueError("expected finite samples above 0")
        if self.peak_bytes < 0 or self.against_peak_bytes < 0:
            raise ValueError("expected sizes of 0 or more")

    @property
    def median(self) -> float:
        """Median of the candidate's samples, in `unit` per inference."""
        return statistics.median(self.samples)

    @property
    def against_median(self) -> float:
        """Median of the baseline's samples, in `unit` per inference."""
        return statistics.median(self.against)

    @property
    def quotient(self) -> float:
        """Cost of the candidate as a share of the baseline's: the median of the paired rounds' quotients."""
        return statistics.median(c / b for c, b in zip(self.samples, self.against, strict=True))

    @property
    def memory_quotient(self) -> float:
        """Memory of the candidate as a share of the baseline's."""
        return self.peak_bytes / max(self.against_peak_bytes, 1)


@dataclass(frozen=True, slots=True)
class Failure:
    """A measurement that did not come about, as a value: the search goes on without it. Kinds: see `FailureKind`."""

    kind: FailureKind
    message: str
    retryable: bool
    #: What to type or do next; may be empty.
    advice: str = ""

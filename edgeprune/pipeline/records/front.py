"""`front.json`: what came of several bounds that were searched for at once (documented in docs/interfaces.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeprune.core.budget import Answer
from edgeprune.core.kinds import DeviceKind, Unit
from edgeprune.core.schema import FRONT_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.pipeline.bounds import Bounded
from edgeprune.pipeline.records.figures import Count, Positive, Whole
from edgeprune.pipeline.records.result import Ended
from edgeprune.tasks.names import MetricName, TaskName


@dataclass(frozen=True, slots=True)
class Between:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDevice:
    """Where a front was validated."""

    name: str
    kind: DeviceKind
    emulated: bool
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpruned:
    """The unpruned network of a front."""

    #: By the run's metric on the test set, PyTorch on the host.
    quality: Between
    #: In the device's unit.
    latency: Positive
    peak_bytes: Count
    bytes: Whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """A bound that no network can keep."""

    name: str
    #: The bound as it was written.
    asked: str
    #: A share of the unpruned network's, or the NCR.
    limit: float
    status: Literal["impossible"]
    answer: Answer
    #: What is possible at best.
    error: str
    path: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What came of a bound; the rest is in the result.json of its folder."""

    #: Also of its folder.
    name: str
    #: The bound as it was written.
    asked: str
    #: A share of the unpruned network's, or the NCR.
    limit: float
    status: Ended
    answer: Answer
    #: The options whose bounds are not kept.
    missed: tuple[str, ...]
    recommended: bool
    #: Its folder, and the file that was judged, inside the run's.
    path: str
    file: str
    trial: Count
    #: By the run's metric on the test set, PyTorch on the host.
    quality: Between
    #: What was lost: points of a share, or percent by which the error grew.
    drop: float
    #: In the device's unit; and shares of the unpruned network's.
    latency: Positive
    latency_share: Between
    peak_bytes: Count
    memory_share: float
    bytes: Count
    bytes_share: float
    ncr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial of a front; the shares, of the unpruned network's, are None where measuring failed."""

    trial: Count
    #: By the run's metric on validation examples, before fine-tuning.
    score: float
    latency_share: float | None
    memory_share: float | None
    bytes_share: float | None
    ncr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What a `front.json` holds."""

    schema: int = FRONT_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    status: Ended
    model: str
    data: str
    task: TaskName
    metric: MetricName
    #: The option that holds the bounds.
    bound: Bounded
    device: FrontDevice
    unpruned: Unpruned
    #: One a bound, the loosest first.
    points: tuple[Reached | Impossible, ...]
    trials: tuple[Tried, ...]
    #: Of this session.
    seconds: float

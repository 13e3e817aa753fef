"""`result.json`: how a run ended, and everything that came out (documented in docs/interfaces.md).

What a file lacks it lacks by its kind: a run that goes on is a `Header`, one that failed an `EndedEarly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from edgeprune.core.budget import Answer, Budget
from edgeprune.core.kinds import DeviceKind, Unit
from edgeprune.core.schema import RESULT_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.pipeline.config import Setting
from edgeprune.pipeline.records.backends import TimedBackend
from edgeprune.pipeline.records.figures import Ends, Number, Positive
from edgeprune.pipeline.records.files import Artifact, Validated
from edgeprune.pipeline.records.network import After, AnyBefore, Data, Recall
from edgeprune.pipeline.records.search import BoundedSearch, Possible, Search
from edgeprune.tasks.names import MetricName, TaskName

Status = Literal["running", "done", "budget-not-met", "worse", "impossible", "failed", "interrupted"]
#: How a run that got to its end may have ended.
Ended = Literal["done", "budget-not-met", "worse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What every result.json has, however the run ended; of one that goes on it is all."""

    schema: int = RESULT_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    status: Status
    #: The stage it got to.
    stage: str
    #: Every setting as given.
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedEarly(Header):
    """A run without a result."""

    #: Why it ended.
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontHeader(Header):
    """A run with several bounds that got to its end."""

    #: Every option as it was decided.
    settled: Mapping[str, Setting]
    #: The file that has the outcome.
    front: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where it was validated."""

    name: str
    kind: DeviceKind
    #: Also of an emulator that is reached like a board.
    emulated: bool
    unit: Unit
    #: What it says of itself: machine, cpu, cores, governor, runtime and its version, ...
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A bound, and what the file has."""

    bound: Literal["max_memory", "max_bytes", "max_drop", "expect_ncr", "above_chance"]
    #: Both in `unit`.
    limit: Number
    value: Number
    unit: str
    #: Whether nobody asked for it.
    default: bool
    answer: Answer
    #: Whether the answer is "met".
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCheck:
    """The bound on latency, which is judged by an interval: "open" where that holds the limit."""

    bound: Literal["max_latency"]
    limit: Number
    value: Number
    unit: str
    default: bool
    answer: Answer
    met: bool
    #: Of `value`.
    interval: Ends


AnyCheck = Annotated[Check | LatencyCheck, Field(discriminator="bound")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was asked for, and whether the file has it."""

    asked: Budget
    #: The file that was judged.
    artifact: str
    checks: tuple[AnyCheck, ...]
    #: Of all checks: "not met" before "open" before "met".
    answer: Answer
    met: bool
    #: No bound is missed, and the file has no drawbacks.
    recommended: bool


@dataclass(frozen=True, slots=True)
class TimedStep:
    """The quickest training step in one place: its seconds, and how many times faster than in plain float32 it is."""

    memory_format: Literal["contiguous", "channels_last"]
    precision: Literal["float32", "bfloat16"]
    seconds: Positive
    speedup: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Where networks were trained."""

    device: Literal["cpu", "cuda", "mps"]
    memory_format: Literal["contiguous", "channels_last"]
    precision: Literal["float32", "bfloat16"]
    #: Empty where there was nothing to choose.
    timed: tuple[TimedStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Header):
    """A run that got to its end."""

    status: Ended
    device: Device
    data: Data
    task: TaskName
    #: What `validation_score`, `lost` and the trials' scores are of.
    metric: MetricName
    baseline: Annotated[AnyBefore, Field(discriminator="source")]
    compressed: After
    #: Empty where answers are no classes.
    classes: tuple[Recall, ...]
    artifacts: tuple[Artifact, ...]
    search: BoundedSearch | Search
    possible: Possible
    #: Every option as it was decided, and why so.
    settled: Mapping[str, Setting]
    training: Trained
    #: Of this session: what was done before a resume is not in it.
    seconds: float
    budget: Judged
    #: What runtime and threads were chosen from, where they were left to choose.
    backends: tuple[TimedBackend, ...] = ()

    def __post_init__(self) -> None:
        # Of the settings these are shown; the others are only repeated, which checks them.
        if not all(isinstance(self.config.get(name), str) for name in ("model", "data")):
            raise ValueError("expected the names of model and data in config")
        validated = [each for each in self.artifacts if isinstance(each, Validated)]
        if not any(each.path == self.budget.artifact for each in validated):
            raise ValueError("expected the file that was judged among the validated artifacts")
        told = [self.baseline.scores, self.compressed.scores, self.compressed.scores_before_finetune]
        told += [scores for each in validated for scores in (each.device_scores, each.baseline_device_scores)]
        if not all(self.metric in scores for scores in told):
            raise ValueError(f"expected a figure of {self.metric} wherever there are scores")

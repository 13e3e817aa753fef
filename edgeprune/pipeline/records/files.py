"""Of `result.json`: the files that ship, and how each was measured beside the unpruned one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import MeasureSettings, Verdict
from edgeprune.core.runtimes import Format, Precision, RuntimeName
from edgeprune.pipeline.records.figures import Count, Positive, Scores, Share
from edgeprune.profilers.replies import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class NotExported:
    """A format that the network cannot be exported to."""

    format: Format
    exported: Literal[False]
    precision: Precision = "fp32"
    path: None
    validated: Literal[False]
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBits:
    """How an int8 file came about; nothing of it where all has 8 bits and little enough is lost on validation."""

    #: Layers, or operators of the file, whose output stays in float32; the most sensitive first.
    floats: tuple[str, ...] = ()
    #: Epochs (minutes, where fine-tuning has minutes) of training that knew of the rounding.
    learnt: float = 0.0
    #: Operators of the file, or kinds of them, that stay in float32 because the format's quantizer fails at them.
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file that ships, and the unpruned one that it was compared to; paths are relative to the run folder."""

    format: Format
    exported: Literal[True]
    precision: Precision
    path: str
    sha256: str
    bytes: Count
    baseline_path: str
    baseline_sha256: str
    baseline_bytes: Count
    #: Largest absolute difference of any output from PyTorch's, on validation images.
    parity_max_abs: float
    #: Of int8 files alone.
    eight_bits: EightBits | None = None
    runtime: RuntimeName


@dataclass(frozen=True, slots=True, kw_only=True)
class NotValidated(_File):
    """A file that the device has no runtime for, or whose runtime does not open it."""

    validated: Literal[False]
    why_not: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Cost per inference of one file, in `unit`."""

    median: Positive
    #: Round by round.
    samples: tuple[float, ...]
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How many times faster than the unpruned file, with the ends of the 95 % interval."""

    value: float
    ci_low: float
    ci_high: float
    #: Fresh processes it rests on, and outliers that were left out of them.
    processes: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Drawback:
    """A figure in which the file is no better than the unpruned one.

    `worse`: it was shown to be worse; else it was only not shown to be better (the interval of the speed-up holds 1, or
    the files are of one size).
    """

    what: Literal["latency", "bytes", "memory"]
    worse: bool
    #: What grew, in words.
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(_File):
    """A file as it was measured on the device, beside the unpruned one in the same rounds."""

    validated: Literal[True]
    #: On the test set, through the files on the device.
    device_scores: Scores
    baseline_device_scores: Scores
    #: 95 % interval of the metric that judges; None of float32 files, whose answers are the host's.
    device_interval: tuple[float, float] | None = None
    #: Share of the answers to the test set that are the host's.
    agreement: Share
    latency: Latency
    baseline_latency: Latency
    #: Index of the fresh process of each round.
    process: tuple[int, ...]
    speedup: Speedup
    #: Seconds to load, and of the first inference; None where loading has no seconds.
    load_s: float | None
    first_s: float | None
    #: Heap the model holds, over a warmed-up runtime.
    peak_bytes: Count
    baseline_peak_bytes: Count
    memory_method: str
    settings: MeasureSettings
    #: What the device said of itself before and after each process.
    states: tuple[Mapping[str, Any], ...]
    verdict: Verdict
    advice: str
    #: Races thrown away because the device was throttled or busy.
    rejected: Count
    drawbacks: tuple[Drawback, ...]
    #: What each operator takes, in the order in which they run; empty where the runtime does not tell.
    operators: tuple[Operator, ...] = ()
    baseline_operators: tuple[Operator, ...] = ()
    #: Why there are none; "" where there are.
    operators_why: str = ""


#: One entry a format and precision.
Artifact = Annotated[
    Validated | Annotated[NotValidated | NotExported, Field(discriminator="exported")],
    Field(discriminator="validated"),
]

"""What `profile --json` and `validate --json` print, field by field (documented in docs/interfaces.md).

Costs are in `unit`; times are seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Failure, MeasureSettings, Verdict
from edgeprune.core.schema import PROFILE_SCHEMA, VALIDATE_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.profilers.inputs import Shapes
from edgeprune.profilers.replies import Fed, Operator, Throughput
from edgeprune.profilers.statistics import Interval
from edgeprune.profilers.verdict import State
from edgeprune.tasks.names import MetricName, TaskName


@dataclass(frozen=True, slots=True)
class External:
    """A file that holds weights of an ONNX model, by its place beside the model."""

    location: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What one file costs: raw samples of all processes that count, and what is made of them."""

    file: str
    #: Hash and bytes of the file and of all that is in `external`.
    sha256: str
    bytes: int
    external: tuple[External, ...]
    unit: Unit
    #: Cost per inference, one after the other, and the process of each. Of many the newest: `count` is of all.
    samples: tuple[float, ...]
    process: tuple[int, ...]
    count: int
    warmups: tuple[float, ...]
    load_s: float | None
    first_s: float | None
    #: Whether `samples` are single runs, so that percentiles mean something; else each is the median of several.
    single_runs: bool
    #: Median over the processes' medians with its 95 % interval; None of a single process.
    interval: Interval | None
    #: Heap the model holds, one reading per process of its own.
    memory_readings: tuple[int, ...]
    memory_method: str
    throughput: Throughput | None
    operators: tuple[Operator, ...] | None
    #: Why there are no times per operator, where they were asked for.
    operators_why: str
    verdict: Verdict
    advice: str
    rejected: int
    states: tuple[State, ...]
    settings: MeasureSettings
    shapes: Shapes
    #: What each input was fed with.
    inputs: tuple[Fed, ...]
    #: Of a .tflite file: the signature that was run, and all that it has.
    signature: str
    signatures: tuple[str, ...]
    #: How onnxruntime was given inputs and outputs; see `opened` of the probe.
    binding: str
    facts: Mapping[str, Any]
    #: Median over the processes' medians, in `unit`.
    median: float
    #: What 90 % (99 %) of the runs do not exceed; None where too few tell.
    p90: float | None
    p99: float | None
    #: Median of the memory readings, and their range as a share of it.
    peak_bytes: int
    memory_spread: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A file's cost as a share of another's, raced in the same processes."""

    file: str
    against: str
    unit: Unit
    latency: Interval
    memory: float
    bytes: float
    samples: tuple[float, ...]
    against_samples: tuple[float, ...]
    process: tuple[int, ...]
    verdict: Verdict
    advice: str
    rejected: int
    states: tuple[State, ...]
    settings: MeasureSettings


@dataclass(frozen=True, slots=True)
class NotProfiled:
    """A file that could not be profiled."""

    file: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class ProfiledOn:
    """The device, and what it says of itself: machine, cpu, cores, runtime and its version, ..."""

    name: str
    emulated: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """Everything that `profile --json` prints."""

    schema: int = PROFILE_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    device: ProfiledOn
    #: One a file, in the order given, the one of `--against` last.
    profiles: tuple[Profile | NotProfiled, ...]
    #: That file; None where there is none.
    against: str | None
    #: One a file that was raced with it.
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class ValidatedOn:
    """The device."""

    name: str
    emulated: bool


@dataclass(frozen=True, slots=True)
class ValidatedData:
    """The data set, and a hash of it."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What was right of `images` of the training set, in one layout and with one scaling."""

    layout: str
    preprocessing: str
    correct: int
    images: int


@dataclass(frozen=True, slots=True)
class TriedScore:
    """What the metric says of `images` of the training set, in one layout and with one scaling."""

    layout: str
    preprocessing: str
    score: float
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What `validate --json` prints of any task."""

    schema: int = VALIDATE_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    file: str
    device: ValidatedOn
    data: ValidatedData
    #: The task that the answers are judged by, and the metric that counts.
    task: TaskName
    metric: MetricName
    #: What every metric of the task says, in its own terms.
    scores: Mapping[str, float]
    #: Test examples.
    images: int
    #: Wall time per image, sending and fetching included.
    seconds_per_image: float
    #: How the images were laid out: "as they come", "NHWC", or as the line in `conventions` says.
    layout: str
    #: How they were scaled: "of the file", "of the data", "unit", "raw", or the numbers given.
    preprocessing: str
    #: Images per run.
    batch: int
    #: What was decided about the file, a sentence each.
    conventions: tuple[str, ...]
    #: Where the outcome is no better than chance: what is likely, and what to type.
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy(_Judged):
    """Images that a file classified right."""

    #: The ends of the 95 % interval of `metric`.
    interval: tuple[float, float]
    correct: int
    #: The ends of the 95 % interval of `accuracy` (Wilson's).
    low: float
    high: float
    #: Names of the input that took the images (of several, one after the other), and of the output that was read.
    input: str
    output: str
    #: The layouts and scalings that were tried, on training images, where several were possible.
    tried: tuple[Tried, ...]
    #: Share of the images classified right.
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(_Judged):
    """Answers that are no single class."""

    #: The ends of the 95 % interval of `metric`; None where the examples are too few to tell.
    interval: tuple[float, float] | None
    #: What guessing gets by `metric`: the best answer that is always the same; None where that is perfect.
    guessing: float | None
    #: Names of the inputs that took the examples, and of the outputs that were read.
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: The layouts and scalings that were tried, on training examples, where several were possible.
    tried: tuple[TriedScore, ...]

"""What is read of an earlier run's folder: its settings, and the figures of `result.json` that its table is made of.

A file that lacks one of them, or holds another type, is damaged, and is refused before anything is shown. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from edgeprune.core.budget import Answer
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.inputs import InputSpec
from edgeprune.core.kinds import DeviceKind, Unit
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import Format, RuntimeName
from edgeprune.core.schema import FRONT_SCHEMA, RESULT_SCHEMA, check_schema
from edgeprune.core.store import START_ANEW, RunFolder
from edgeprune.pipeline.config import DEFAULT, GIVEN, RunConfig, Setting, as_options, make_config
from edgeprune.tasks.names import MetricName, TaskName

#: How a run that got to its end may have ended.
Ended = Literal["done", "budget-not-met", "worse"]
Count = Annotated[int, Field(ge=0)]
#: What shares are taken of.
Whole = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
#: Figures by the names of their metrics.
Scores = Mapping[str, float]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was compressed."""

    model: str
    data: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """How inputs are scaled, as a formula."""

    formula: str


@dataclass(frozen=True, slots=True)
class Data:
    """What is said of the data."""

    input_shape: tuple[Whole, ...] | tuple[InputSpec, ...]
    preprocessing: Scaled


@dataclass(frozen=True, slots=True)
class Before:
    """The unpruned network."""

    scores: Scores
    neurons: Whole
    parameters: Whole
    macs: Whole


@dataclass(frozen=True, slots=True)
class Recall:
    """A class on the test set; None where no image is of it."""

    name: str
    baseline_recall: Share | None
    recall: Share | None

    def __post_init__(self) -> None:
        if (self.baseline_recall is None) != (self.recall is None):
            raise ValueError("expected recall before and after, or neither")


@dataclass(frozen=True, slots=True)
class Layer:
    """Channels of a group, and how many stay."""

    channels: Count
    kept: Count


@dataclass(frozen=True, slots=True)
class Staying:
    """A layer that stays as it is."""

    reason: str
    macs_share: Share


@dataclass(frozen=True, slots=True)
class After:
    """The pruned network."""

    scores: Scores
    scores_before_finetune: Scores
    lost: float
    lost_unit: Literal["points", "%"]
    ncr: float
    neurons: Count
    parameters: Count
    macs: Count
    layers: tuple[Layer, ...]
    frozen: Mapping[str, Staying]


@dataclass(frozen=True, slots=True)
class Device:
    """Where it was validated."""

    name: str
    kind: DeviceKind
    emulated: bool


@dataclass(frozen=True, slots=True)
class Latency:
    """The median of one file."""

    median: Positive
    unit: Unit


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster, with its interval."""

    value: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class NotValidated:
    """A format that could not be exported (then it has no path), or that the device has no runtime for."""

    format: Format
    path: str | None
    validated: Literal[False]
    exported: bool
    why_not: str

    def __post_init__(self) -> None:
        if self.exported == (self.path is None):
            raise ValueError("expected the path of a file that was exported, and none of one that was not")


@dataclass(frozen=True, slots=True)
class Drawback:
    """A figure in which the file is no better than the unpruned one."""

    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Validated:
    """A file and the one it was compared to."""

    format: Format
    path: str
    validated: Literal[True]
    exported: Literal[True]
    runtime: RuntimeName
    device_scores: Scores
    baseline_device_scores: Scores
    agreement: Share
    latency: Latency
    baseline_latency: Latency
    speedup: Speedup
    peak_bytes: Count
    baseline_peak_bytes: Count
    bytes: Count
    baseline_bytes: Count
    verdict: str
    advice: str
    baseline_path: str
    drawbacks: tuple[Drawback, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A bound, and what the file has."""

    bound: Literal["max_latency", "max_memory", "max_bytes", "max_drop", "expect_ncr", "above_chance"]
    limit: float
    value: float
    unit: str
    default: bool
    answer: Answer
    met: bool
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What was asked for, and whether the file has it."""

    artifact: str
    checks: tuple[Check, ...]
    answer: Answer
    met: bool
    recommended: bool


@dataclass(frozen=True, slots=True)
class Searched:
    """What the table says of the search."""

    agent_sparsity: float | None


@dataclass(frozen=True, slots=True)
class Possible:
    """What the narrowest network costs."""

    latency_share: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that got to its end."""

    status: Ended
    config: Asked
    device: Device
    data: Data
    baseline: Before
    task: TaskName
    metric: MetricName
    compressed: After
    classes: tuple[Recall, ...]
    artifacts: tuple[Annotated[Validated | NotValidated, Field(discriminator="validated")], ...]
    search: Searched
    possible: Possible
    budget: Judged

    def __post_init__(self) -> None:
        validated = [each for each in self.artifacts if isinstance(each, Validated)]
        if not any(each.path == self.budget.artifact for each in validated):
            raise ValueError("expected the file that was judged among the validated artifacts")
        told = [self.baseline.scores, self.compressed.scores, self.compressed.scores_before_finetune]
        told += [scores for each in validated for scores in (each.device_scores, each.baseline_device_scores)]
        if not all(self.metric in scores for scores in told):
            raise ValueError(f"expected a figure of {self.metric} wherever there are scores")


@dataclass(frozen=True, slots=True)
class _Repeatable:
    """What is read of a result.json to repeat its run, however that ended."""

    config: Mapping[str, Any]
    settled: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Between:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FrontDevice:
    """Where a front was validated."""

    name: str
    kind: DeviceKind
    emulated: bool
    unit: Unit


@dataclass(frozen=True, slots=True)
class Unpruned:
    """The unpruned network of a front."""

    quality: Between
    latency: Positive
    peak_bytes: float
    bytes: Positive


@dataclass(frozen=True, slots=True)
class Impossible:
    """A bound that no network can keep."""

    name: str
    asked: str
    limit: float
    status: Literal["impossible"]
    answer: Answer
    error: str


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of a bound; the rest is in its folder."""

    name: str
    asked: str
    limit: float
    status: Ended
    answer: Answer
    missed: tuple[str, ...]
    recommended: bool
    path: str
    file: str
    quality: Between
    drop: float
    latency: Positive
    latency_share: Between
    peak_bytes: float
    memory_share: float
    bytes: float
    bytes_share: float
    ncr: float


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial of a front."""

    score: float
    latency_share: float | None
    memory_share: float | None
    bytes_share: float | None
    ncr: float


@dataclass(frozen=True, slots=True)
class Front:
    """What is read of a `front.json`."""

    status: Ended
    model: str
    data: str
    task: TaskName
    metric: MetricName
    bound: Literal["max_latency", "max_memory", "max_bytes", "expect_ncr"]
    device: FrontDevice
    unpruned: Unpruned
    points: tuple[Reached | Impossible, ...]
    trials: tuple[Tried, ...]


def stored_config(folder: RunFolder) -> RunConfig:
    """The settings an earlier run was made with. Raises StorageError where they are damaged."""
    values = folder.read_json("config.json", dict[str, Any])
    try:
        return make_config(values, str(folder / "config.json"))
    except UsageError as error:
        raise StorageError(error.message, f"{START_ANEW}, or use the version that wrote it") from error


def repeated(path: Path, *, changed: bool = False) -> dict[str, Any]:
    """The options that repeat the run of a result.json: as they were settled, where it got that far; no name.

    Where something is to be `changed`, what was only worked out is left open again: it may hang on that.

    Raises UsageError where it is missing or damaged, or another version's.
    """
    source = Source(path, UsageError, "check --config: a file of TOML, or a run's result.json")
    result = source.read_json(dict[str, Any])
    check_schema(path, result.get("schema"), RESULT_SCHEMA, "repeat it with the version that wrote it")
    said = source.shaped(result, _Repeatable)
    given = {name: value for name, value in said.config.items() if value is not None}
    settled = said.settled
    if changed:
        settled = {name: each for name, each in settled.items() if each.why in (GIVEN, DEFAULT)}
    values = given | as_options(settled)
    values.pop("name", None)
    make_config(values, str(path))
    return values


def finished(folder: RunFolder) -> dict[str, Any] | None:
    """`result.json` of a run that got to its end; None where there is still something to do.

    Raises StorageError where it is damaged.
    """
    if not (folder / "result.json").is_file():
        return None
    result = folder.read_json("result.json", dict[str, Any])
    if result.get("status") not in get_args(Ended):
        return None
    Source(folder / "result.json", StorageError, START_ANEW).shaped(result, Finished)
    return result


def finished_front(folder: RunFolder) -> dict[str, Any] | None:
    """`front.json` of a run with several bounds that got to its end; None where there is still something to do.

    Raises StorageError where it, or the result of a bound, is damaged, UsageError where it is of another schema.
    """
    if not (folder / "result.json").is_file():
        return None
    result = folder.read_json("result.json", dict[str, Any])
    if result.get("status") not in get_args(Ended) or "front" not in result:
        return None
    path = folder / "front.json"
    source = Source(path, StorageError, START_ANEW)
    front = source.read_json(dict[str, Any])
    check_schema(path, front.get("schema"), FRONT_SCHEMA, START_ANEW)
    for point in source.shaped(front, Front).points:
        if isinstance(point, Reached) and finished(RunFolder(folder / point.path)) is None:
            raise source.refusal(f"the result of {point.name} is missing in {folder / point.path}")
    return front

"""The types that rooms hand each other: frozen, and all but the device session go to JSON and back.

One inside unit each: seconds, bytes, shares in [0, 1]. Other units exist only in `edgeprune.core.units`.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")
#: Seconds; guest instructions of an emulated processor; seconds that a formula or a recording made up. Figures of
#: different units are never compared, and none is converted into another.
Unit = Literal["s", "instructions", "simulated s"]
DeviceKind = Literal["local", "ssh", "adb", "emulated", "simulated"]
Format = Literal["onnx", "tflite"]
RuntimeName = Literal["onnxruntime", "litert"]
#: refused: the runtime there cannot open or run the model. crashed: the process ended or the request raised there.
#: killed: the system ended it, mostly out of memory. timeout: the deadline passed. garbled: the answer is no line of
#: JSON of a sane size, or holds what cannot be. lost: the link or the device is gone. full: no room on the device.
#: busy: another program holds the device.
FailureKind = Literal["refused", "crashed", "killed", "timeout", "garbled", "lost", "full", "busy"]

Verdict = Literal["", "stable", "noisy", "throttled", "busy"]
#: Whether a figure keeps its bound; "open": the measurement cannot tell it apart from the bound.
Answer = Literal["met", "not met", "open"]
#: What answers are judged by: the share that is right, or the mean of that share over the classes.
MetricName = Literal["accuracy", "balanced-accuracy"]

#: Building an adapter takes milliseconds, using one microseconds.
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_json(value: Any) -> Any:
    """A frozen value as plain JSON data (dicts, lists, numbers, strings)."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_json(kind: type[T], data: Any) -> T:
    """The value of type `kind` that `to_json` wrote. Raises pydantic.ValidationError where `data` is not one."""
    value: T = _adapter(kind).validate_python(data)
    return value


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that can only be removed together, over every layer they couple.

    Rule: a width `w` is allowed when `floor <= w <= channels` and `w` is `channels` or a multiple of `multiple_of`.
    Example: a hidden layer of 300 neurons with floor 30 and multiple_of 1 allows 30, 31, ..., 300.
    """

    name: str
    channels: int
    floor: int
    multiple_of: int
    #: Multiply-accumulates and parameters that one channel costs in the unpruned network.
    macs_per_channel: float
    parameters_per_channel: float
    #: Parameters of the layer that makes these channels (of the consumer for input features): l_p of the state.
    layer_parameters: int
    #: Names of the coupled layers, the maker first.
    layers: tuple[str, ...]
    kind: Literal["inputs", "neurons", "channels"] = "neurons"
    #: How many neurons go with one channel (several layers may make it), for NCR.
    neurons_per_channel: int = 1

    def snap(self, width: float) -> int:
        """The nearest allowed width at or below `width`, never under the floor."""
        if width >= self.channels:
            return self.channels
        snapped = int(width) // self.multiple_of * self.multiple_of
        return max(self.floor, snapped)


@dataclass(frozen=True, slots=True)
class PruningPlan:
    """Per group the channels that stay, ascending. Groups that are not named keep all their channels."""

    kept: Mapping[str, tuple[int, ...]]

    @property
    def widths(self) -> dict[str, int]:
        """How many channels stay, per group."""
        return {name: len(kept) for name, kept in self.kept.items()}

    @property
    def key(self) -> str:
        """A short name for exactly this choice of channels."""
        text = ";".join(f"{name}:{','.join(map(str, kept))}" for name, kept in sorted(self.kept.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape (None where dynamic) and element type of one input or output."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file as it ships."""

    path: Path
    format: Format
    precision: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """Where a device is and what it needs, passive: opening it is `edgeprune.devices.open_session`."""

    name: str
    kind: DeviceKind
    #: `ssh://[user@]host[:port]`, `adb://[serial]`, or the description file of a simulated device.
    address: str = ""
    #: The known board (see `edgeprune.devices.boards`) whose defaults were taken.
    board: str = ""
    #: The Python that runs the probe there; "": the one we run in, or python3 on another machine.
    python: str = ""
    #: Defaults of `--threads` and `--runtime` on this device; None: the program's.
    threads: int | None = None
    runtime: RuntimeName | None = None
    #: Folder on the device for probe and models; "": the transport's own choice.
    folder: str = ""
    #: Models kept there from run to run, at most so many bytes; the least recently used go first.
    cache_bytes: int = 512 << 20
    #: Google's benchmark_model on this machine, for phones.
    benchmark_model: str = ""

    @property
    def emulated(self) -> bool:
        """Whether its processor is an emulated one: it counts instructions and is never called a board."""
        return self.kind == "emulated"

    @property
    def unit(self) -> Unit:
        """What latencies of this device are given in."""
        if self.kind == "emulated":
            return "instructions"
        return "simulated s" if self.kind == "simulated" else "s"


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


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate the search tried, appended to the store as it happens."""

    index: int
    plan: PruningPlan
    #: Share of the search's validation images classified right.
    accuracy: float
    ncr: float
    cost: Measurement | Failure
    bytes: int
    reward: float
    seconds: float
    #: The actor's and the executed sparsity per step, shares in [0, 1].
    proposed: tuple[float, ...] = field(default=())
    executed: tuple[float, ...] = field(default=())

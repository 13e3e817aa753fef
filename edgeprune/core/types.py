"""The types that rooms hand each other: frozen, and all but the device session go to JSON and back.

One inside unit each: seconds, bytes, shares in [0, 1]. Other units exist only in `edgeprune.core.units`.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")
Unit = Literal["s", "instructions"]
Format = Literal["onnx", "tflite"]
RuntimeName = Literal["onnxruntime", "litert"]


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
    kind: str
    emulated: bool = False
    #: The Python that runs the probe there.
    python: str = ""


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How a measurement is made; kept with it, since only measurements made alike may be compared."""

    runtime: RuntimeName
    threads: int = 1
    #: Runs thrown away first, at least this many and at least this long.
    warmup_runs: int = 10
    warmup_s: float = 0.05
    #: Interleaved rounds per process; each gives one sample (the median of its runs) for baseline and candidate.
    rounds: int = 11
    #: A round lasts at least this long and holds at least `min_runs` runs.
    round_s: float = 0.006
    min_runs: int = 5
    #: Fresh processes; 0 means one living probe process that serves many candidates.
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a file cost on a device, raw samples kept.

    `samples[i]` and `against[i]` were taken in the same round, of the candidate and of the baseline.
    """

    unit: Unit
    samples: tuple[float, ...]
    warmups: tuple[float, ...]
    #: The baseline's samples of the same rounds.
    against: tuple[float, ...]
    #: Heap the model holds: highest mallinfo2 reading after load and first inference, above the warmed-up runtime.
    peak_bytes: int
    against_peak_bytes: int
    #: How memory was read: "mallinfo2", or "vmhwm" where the C library has no mallinfo2.
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
    """A measurement that did not come about, as a value: the search goes on without it."""

    kind: Literal["refused", "crashed", "timeout", "garbled", "lost"]
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound: absolute (seconds or bytes), or `relative` to the unpruned network on the same device."""

    value: float
    relative: bool = False

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

"""What an application needs to know of a model: `model.json` of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeprune.core.kinds import Unit
from edgeprune.core.runtimes import Format, Precision, RuntimeName
from edgeprune.core.schema import BUNDLE_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.data.dataset import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One of the model's inputs, or outputs; `shape` without the batch, which is first. Channels come first too."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    #: Of inputs: how values as the data hold them become what the model takes; null: they are taken as they are.
    preprocessing: Preprocessing | None = None
    #: Of inputs: whether the data hold bytes, 0 to 255 of pictures.
    bytes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured on the device."""

    device: str
    emulated: bool
    facts: Mapping[str, Any]
    #: Of the file, on the test set.
    scores: Mapping[str, float]
    #: Median cost of an inference, and how many times faster than the unpruned float file, with its 95 % interval.
    latency: float
    unit: Unit
    speedup: tuple[float, float, float]
    heap_bytes: int
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An example, in `sample.npz`, and what the file answers on the host, in `expected.npy`, outputs in a row."""

    #: How far another runtime may be off in any output.
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Everything about a file that ships."""

    schema: int = BUNDLE_SCHEMA
    edgeprune: str = VERSION
    file: str
    format: Format
    precision: Precision
    runtime: RuntimeName
    sha256: str
    bytes: int
    task: str
    #: Empty where answers are numbers.
    labels: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    #: Of fully connected networks the input features that are read; the file takes all, and gathers these itself.
    kept_inputs: tuple[int, ...] | None
    #: Channels that stay, by group; empty where nothing was pruned.
    widths: Mapping[str, int]
    #: Of the run, and what its network and data are called there.
    run: str
    model: str
    data: str
    figures: Figures
    sample: Sample
    #: For its owner to fill in.
    licence: str | None = None
    layout: Literal["channels first"] = "channels first"

"""Of `result.json`: the data, and the network before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprune.core.inputs import InputSpec
from edgeprune.data.dataset import Preprocessing
from edgeprune.pipeline.records.figures import Count, Ends, Number, Scores, Share, Whole


@dataclass(frozen=True, slots=True)
class TriedScaling:
    """One scaling that was compared: what --preprocessing takes for it, and its share by the run's metric."""

    name: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """How inputs are scaled: (raw * scale - mean) / std."""

    scale: float
    #: A number for each channel or feature.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: The same in words.
    formula: str
    #: Worked out from the `data`, an `entry` beside them, the `option`, or what trained `weights` fit.
    source: Literal["data", "entry", "option", "weights"]
    #: What was compared; empty where nothing was.
    tried: tuple[TriedScaling, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledInputs:
    """How each of several inputs is scaled; null: integers, which stay what they are."""

    inputs: Mapping[str, Preprocessing | None]
    #: The same in words.
    formula: str
    #: As of one input.
    source: Literal["data", "entry", "option", "weights"]
    tried: tuple[TriedScaling, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The data set, in numbers of examples."""

    name: str
    fingerprint: str
    train: Count
    validation: Count
    test: Count
    #: Of one example; of several inputs, or of integers, each.
    input_shape: tuple[Whole, ...] | tuple[InputSpec, ...]
    preprocessing: Scaled | ScaledInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The unpruned network."""

    #: On the test set, by PyTorch on the host.
    scores: Scores
    interval: Ends
    #: By the run's metric, on validation examples.
    validation_score: float
    neurons: Whole
    parameters: Whole
    #: Multiply-accumulates of one input.
    macs: Whole
    #: Heavy operations that are not among the MACs, by layer.
    uncounted: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeFromWeights(Before):
    """Its weights are a file of the user's."""

    source: Literal["weights"]
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeFromModel(Before):
    """The user's function returned it trained."""

    source: Literal["model"]
    #: FILE.py:FUNCTION.
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeTrained(Before):
    """It was trained here, or by an earlier run of the same content."""

    source: Literal["trained", "cached"]
    epochs: Count
    #: A hash of all that training hangs on.
    key: str


AnyBefore = BeforeFromWeights | BeforeFromModel | BeforeTrained
#: The record of each `source`.
ORIGINS: Mapping[str, type[AnyBefore]] = {
    "weights": BeforeFromWeights,
    "model": BeforeFromModel,
    "trained": BeforeTrained,
    "cached": BeforeTrained,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """Channels of a group, and how many stay."""

    name: str
    kind: str
    channels: Count
    kept: Count


@dataclass(frozen=True, slots=True)
class Staying:
    """A layer that stays as it is, and what it costs in the unpruned network by itself."""

    reason: str
    macs: Count
    macs_share: Share
    parameters: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """The pruned network."""

    scores_before_finetune: Scores
    #: On the test set, by PyTorch on the host.
    scores: Scores
    interval: Ends
    validation_score: float
    #: Against the unpruned network: points of a share, or percent by which the error grew.
    lost: float
    lost_unit: Literal["points", "%"]
    #: Neurons of the unpruned network per neuron that is left.
    ncr: float
    neurons: Count
    parameters: Count
    macs: Count
    #: Gone through; a fraction where the time was over in the middle of one.
    finetune_epochs: Number
    epoch_taken: Literal["best", "last"]
    layers: tuple[Layer, ...]
    #: By the layer's name.
    frozen: Mapping[str, Staying]


@dataclass(frozen=True, slots=True)
class Recall:
    """A class on the test set, before and after; None where no image is of it."""

    name: str
    images: Count
    baseline_recall: Share | None
    recall: Share | None

    def __post_init__(self) -> None:
        if (self.baseline_recall is None) != (self.recall is None):
            raise ValueError("expected recall before and after, or neither")

"""`shapley.json`, field by field (documented in docs/interfaces.md). Shares are in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeprune.core.schema import SHAPLEY_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.exporters.parity import Parity


@dataclass(frozen=True, slots=True)
class DataNamed:
    """The data set, and a hash of it."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Players:
    """The layer whose channels play, how many they are, and how many stay."""

    name: str
    kind: str
    channels: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What a coalition is worth, and how the values were worked out."""

    #: What v(S) is: a share of the validation images.
    value: Literal["accuracy"] = "accuracy"
    images: int
    #: v of all, and of none.
    everybody: float
    nobody: float
    #: None where all coalitions were looked at.
    permutations: int | None
    #: Coalitions whose value was worked out.
    evaluations: int
    #: A permutation ends where what is left to gain is no more; None as `permutations`.
    tolerance: float | None


@dataclass(frozen=True, slots=True)
class Valued:
    """A channel: its Shapley value, and the standard error of that, 0 where it is exact."""

    channel: int
    value: float
    error: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Coalition:
    """Some channels, and v of them."""

    name: str
    channels: tuple[int, ...]
    accuracy: float


@dataclass(frozen=True, slots=True)
class Scored:
    """Shares of the test images classified right."""

    test_images: int
    unpruned: float
    pruned: float
    fine_tuned: float


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many the network has."""

    unpruned: int
    pruned: int


@dataclass(frozen=True, slots=True)
class Shipped:
    """An exported file."""

    path: str
    bytes: int
    unpruned_bytes: int
    sha256: str
    #: With PyTorch, on validation images.
    parity: Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapleyResult:
    """What a `shapley.json` holds."""

    schema: int = SHAPLEY_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    #: The settings of the run below, with `layer`, `keep` and `images`.
    config: Mapping[str, Any]
    data: DataNamed
    layer: Players
    game: Game
    #: The most useful first.
    values: tuple[Valued, ...]
    coalitions: tuple[Coalition, ...]
    accuracy: Scored
    parameters: Parameters
    #: Validation accuracy after each epoch of fine-tuning.
    history: tuple[float, ...]
    #: Files are float32.
    further_compression: None = None
    artifacts: tuple[Shipped, ...]
    seconds: float

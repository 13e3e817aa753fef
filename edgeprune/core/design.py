"""What is tried: groups of channels, and which of them stay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprune.core.runtimes import Precision

#: Name of the group of input features.
INPUTS = "inputs"


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that can only be removed together, over every layer they couple.

    Rule: a width `w` is allowed when `floor <= w <= channels` and `w` is `channels` or a multiple of `multiple_of`, and
    0 where the group is `removable`.
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
    #: Rows of its first layer's weight that make one channel: those of a head, of a recurrent unit's gates, or the same
    #: place in each group of a convolution.
    rows_per_channel: int = 1
    #: Whether all of it may go: what reads it only adds to what others make, and becomes a constant.
    removable: bool = False

    @property
    def least(self) -> int:
        """The narrowest allowed width."""
        return 0 if self.removable else self.floor

    def snap(self, width: float) -> int:
        """The nearest allowed width at or below `width`, or the narrowest."""
        if width >= self.channels:
            return self.channels
        if width < self.floor:
            return self.least
        return max(self.floor, int(width) // self.multiple_of * self.multiple_of)

    def fitting(self, width: float) -> int:
        """The allowed width for a wish: as `snap`, but a group goes as a whole only below half its floor."""
        return self.floor if self.floor <= 2 * width < 2 * self.floor else self.snap(width)


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
class Design:
    """What is tried: which channels stay, and what the network's file computes with."""

    plan: PruningPlan
    precision: Precision = "fp32"

    @property
    def key(self) -> str:
        """A short name for exactly this: the plan's alone where the file is of 32-bit floats."""
        return self.plan.key if self.precision == "fp32" else f"{self.plan.key} {self.precision}"

"""What of a network may be pruned: values that rooms hand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from edgeprune.core.types import Group, PruningPlan
from edgeprune.pruning.cost import WEIGHTED
from edgeprune.pruning.inputs import SelectedInputs

#: Name of the group of input features.
INPUTS = "inputs"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that reads the group. `columns[c]` are the input channels (or features) it reads of channel c."""

    layer: str
    columns: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Coupling:
    """A group with the layers that make its channels and those that read them."""

    group: Group
    makers: tuple[str, ...]
    consumers: tuple[Consumer, ...]


@dataclass(frozen=True, slots=True)
class Structure:
    """What of a network may be pruned. `frozen` maps a layer's name to why it stays."""

    shape: tuple[int, ...]
    couplings: tuple[Coupling, ...]
    frozen: Mapping[str, str]
    output_layers: tuple[str, ...]
    #: The linear layer that reads the flattened input, if any.
    input_layer: str | None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The prunable groups in the order their channels are made."""
        return tuple(coupling.group for coupling in self.couplings)

    def neurons(self, network: nn.Module) -> int:
        """Neurons of input and hidden layers, not the output: NCR's count ([ACNN] 1); a channel is a neuron."""
        total = 0
        selected = False
        for name, module in network.named_modules():
            if isinstance(module, SelectedInputs):
                total += len(module.kept)
                selected = True
            # A wrapped input layer keeps its own name plus ".linear".
            if (
                isinstance(module, WEIGHTED)
                and name.removesuffix(".linear") not in self.output_layers
                and name not in self.output_layers
            ):
                total += module.weight.shape[0]
        if not selected:
            total += int(torch.Size(self.shape).numel()) if self.input_layer else self.shape[0]
        return total


class Criterion(Protocol):
    """A ranking of channels and a repair of their readers."""

    def plan(self, widths: dict[str, int]) -> PruningPlan:
        """The plan that keeps the best `widths[name]` channels of each group."""

    def weights(self, plan: PruningPlan) -> nn.Module:
        """The full-size network whose readers ignore what `plan` removes, repaired: ready for surgery."""

"""What of a network may be pruned: values that rooms hand on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from edgeprune.core.errors import UsageError
from edgeprune.core.types import Group, PruningPlan
from edgeprune.pruning.cost import weighted
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
    #: Convolutions and linear layers that run and are not the output.
    hidden_layers: tuple[str, ...]
    #: Neurons of the input: features of a fully connected network, channels of a convolutional one.
    inputs: int
    #: The linear layer that reads the flattened input, if any.
    input_layer: str | None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The prunable groups in the order their channels are made."""
        return tuple(coupling.group for coupling in self.couplings)

    def neurons(self, network: nn.Module) -> int:
        """Neurons of input and hidden layers, not the output: NCR's count ([ACNN] 1); a channel is a neuron."""
        total, inputs = 0, self.inputs
        for name in self.hidden_layers:
            module = network.get_submodule(name)
            if isinstance(module, SelectedInputs):
                inputs = len(module.kept)
            layer = module.linear if isinstance(module, SelectedInputs) else weighted(network, name)
            total += layer.weight.shape[0]
        return total + inputs


def neurons_left(groups: Iterable[Group], total: int, widths: Mapping[str, int]) -> int:
    """Neurons of a network of `total` once its groups have these widths."""
    return total - sum((group.channels - widths[group.name]) * group.neurons_per_channel for group in groups)


def check_reachable(groups: Iterable[Group], total: int, ncr: float) -> None:
    """Raises UsageError where the groups' floors do not let a network of `total` neurons come to this NCR."""
    groups = tuple(groups)
    most = total / neurons_left(groups, total, {group.name: group.floor for group in groups})
    if ncr > most:
        raise UsageError(
            f"an NCR of {ncr:g} is out of reach: the groups' floors allow {most:.2f}",
            f"ask for at most {math.floor(100 * most) / 100:g}",
        )


class Criterion(Protocol):
    """A ranking of channels and a repair of their readers."""

    def plan(self, widths: dict[str, int]) -> PruningPlan:
        """The plan that keeps the best `widths[name]` channels of each group."""

    def weights(self, plan: PruningPlan) -> nn.Module:
        """The full-size network whose readers ignore what `plan` removes, repaired: ready for surgery."""

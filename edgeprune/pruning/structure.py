"""What of a network may be pruned: values that rooms hand on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.inputs import Shape
from edgeprune.pruning.channels import Graph
from edgeprune.pruning.cost import neurons_of
from edgeprune.pruning.inputs import SelectedInputs

#: Name of the work that the network's own forward does outside of its layers.
OWN = "(forward)"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that reads the group. `columns[c]` are the input channels (or features) it reads of channel c.

    `refit` False: its weights are not fitted anew to what is left, since they are frozen or shared.
    """

    layer: str
    columns: tuple[tuple[int, ...], ...]
    refit: bool = True


@dataclass(frozen=True, slots=True)
class Places:
    """Where channels lie in a parameter: `places[c]` are those of channel c on its axis."""

    tensor: str
    axis: int
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Coupling:
    """A group with the layers that make its channels and those that read them."""

    group: Group
    makers: tuple[str, ...]
    consumers: tuple[Consumer, ...]
    #: Rows that make the channels.
    rows: tuple[Places, ...] = ()
    #: Columns that read them and are not refitted: of recurrent layers, grouped convolutions, bare weights.
    columns: tuple[Places, ...] = ()

    @property
    def readers(self) -> frozenset[str]:
        """Layers that read the group and do not make it."""
        read = {each.layer for each in self.consumers} | {each.tensor.rpartition(".")[0] for each in self.columns}
        return frozenset(read.difference(self.makers))


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What a module of the unpruned network costs by itself, without the modules inside it; MACs of one input."""

    macs: int = 0
    parameters: int = 0
    neurons: int = 0


@dataclass(frozen=True, slots=True)
class Structure:
    """What of a network may be pruned. `frozen` maps a layer's name to why it stays; `OWN` is the network itself."""

    shape: Shape
    graph: Graph = field(compare=False)
    couplings: tuple[Coupling, ...]
    frozen: Mapping[str, str]
    output_layers: tuple[str, ...]
    #: Layers with neurons that run and are not the output.
    hidden_layers: tuple[str, ...]
    #: Neurons of the input: features of a fully connected network, channels of a convolutional one.
    inputs: int
    #: The linear layer that reads the flattened input, if any.
    input_layer: str | None
    #: Every module that has work or parameters of its own, by name; parameters that are shared count once.
    costs: Mapping[str, LayerCost] = field(default_factory=dict)
    #: Neurons made by weights outside of any layer.
    bare_neurons: int = 0
    #: Heavy operations that are not counted as multiply-accumulates, by the module that runs them.
    uncounted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The prunable groups in the order their channels are made."""
        return tuple(coupling.group for coupling in self.couplings)

    def neurons(self, network: nn.Module) -> int:
        """Neurons of input and hidden layers, not the output: NCR's count ([ACNN] 1); a channel is a neuron."""
        total, inputs = self.bare_neurons - self.graph.bare_rows_gone(network), self.inputs
        for name in self.hidden_layers:
            module = network.get_submodule(name)
            if isinstance(module, SelectedInputs):
                inputs = len(module.kept)
                module = module.linear
            total += neurons_of(module) or 0
        return total + inputs

    def share(self, name: str) -> float:
        """The layer's share of the unpruned network's multiply-accumulates, in [0, 1]."""
        total = sum(cost.macs for cost in self.costs.values())
        return self.costs[name].macs / total if name in self.costs and total else 0.0


def neurons_left(groups: Iterable[Group], total: int, widths: Mapping[str, int]) -> int:
    """Neurons of a network of `total` once its groups have these widths."""
    return total - sum((group.channels - widths[group.name]) * group.neurons_per_channel for group in groups)


def check_reachable(groups: Iterable[Group], total: int, ncr: float) -> None:
    """Raises UsageError where the groups' floors do not let a network of `total` neurons come to this NCR."""
    groups = tuple(groups)
    most = total / neurons_left(groups, total, {group.name: group.least for group in groups})
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

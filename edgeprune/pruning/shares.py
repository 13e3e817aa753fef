"""What of the unpruned network's work and parameters is left at given widths, without making the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Structure


class Shares(NamedTuple):
    """Shares of the unpruned network's, in [0, 1]."""

    macs: float
    parameters: float


class LayerShares:
    """Multiply-accumulates and parameters of a network from the widths of its groups.

    A layer's are proportional to the channels it makes and to those it reads, layer by layer, and so is their sum; that
    is exact but for biases. Layers that are coupled into a group without reading it (norms, depthwise convolutions) go
    with its width.
    """

    def __init__(self, network: nn.Module, structure: Structure) -> None:
        self._total = Shares(
            sum(cost.macs for cost in structure.costs.values()) or 1,
            sum(cost.parameters for cost in structure.costs.values()) or 1,
        )
        makes: dict[str, str] = {}
        reads: dict[str, list[tuple[str, float]]] = {}
        for coupling in structure.couplings:
            readers = {consumer.layer for consumer in coupling.consumers}
            for layer in (*coupling.makers, *(name for name in coupling.group.layers if name not in readers)):
                makes[layer] = coupling.group.name
            for consumer in coupling.consumers:
                share = sum(map(len, consumer.columns)) / weighted(network, consumer.layer).weight.shape[1]
                reads.setdefault(consumer.layer, []).append((coupling.group.name, share))
        self._channels = {group.name: group.channels for group in structure.groups}
        self._layers = [
            (cost, makes.get(name), reads.get(name, []))
            for name, cost in structure.costs.items()
            if cost.macs or cost.parameters
        ]

    def __call__(self, widths: Mapping[str, int]) -> Shares:
        """What is left where each group has `widths[name]` channels; groups that are not named are whole."""
        left = {name: widths.get(name, channels) / channels for name, channels in self._channels.items()}
        macs, parameters = [], []
        for cost, made, read in self._layers:
            share = left[made] if made is not None else 1.0
            # What a layer reads besides, of groups that stay, it reads whole.
            share *= 1.0 - sum(part * (1.0 - left[name]) for name, part in read)
            macs.append(cost.macs * share)
            parameters.append(cost.parameters * share)
        return Shares(math.fsum(macs) / self._total.macs, math.fsum(parameters) / self._total.parameters)

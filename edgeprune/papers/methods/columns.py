"""The weights that read each channel, so that a channel of any group can be weakened, gated or silenced alike.

Input features, neurons and convolution channels are all treated at the layers that read them: there a channel that is
multiplied by zero plays no part whatever its maker, bias or batch norm give.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Structure

#: Per group one number per channel: (channels,).
PerChannel = Mapping[str, Tensor]


class Columns:
    """Where the channels of each group stand in the weights (out, in, ...) of the layers that read them."""

    def __init__(self, structure: Structure) -> None:
        self.groups = structure.groups
        #: Per group: layer and input columns (channels, s) of each channel.
        self._places = {
            coupling.group.name: [(c.layer, torch.tensor(c.columns)) for c in coupling.consumers]
            for coupling in structure.couplings
        }
        self.layers = tuple(dict.fromkeys(layer for places in self._places.values() for layer, _ in places))

    def factors(self, network: nn.Module, layer: str, per_channel: PerChannel) -> Tensor:
        """`per_channel` spread over the layer's input columns, (in,), differentiable; 1 where no group is read."""
        factors = torch.full((weighted(network, layer).weight.shape[1],), 1.0)
        for name, places in self._places.items():
            for place, columns in places:
                if place == layer:
                    spread = per_channel[name].repeat_interleave(columns.shape[1])
                    factors = factors.index_copy(0, columns.flatten(), spread)
        return factors

    def scale_(self, network: nn.Module, per_channel: PerChannel) -> None:
        """Multiply what reads each channel by its number, in place."""
        with torch.no_grad():
            for layer in self.layers:
                weight = weighted(network, layer).weight
                weight.mul_(across(self.factors(network, layer, per_channel), weight))

    def outgoing(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """What reads each channel of group `name`, copied: (channels, d). `tensors`: per layer (out, in, ...)."""
        parts = []
        for layer, columns in self._places[name]:
            part = _columns(tensors[layer], columns)
            parts.append(part.reshape(len(part), *columns.shape, *part.shape[2:]).movedim(1, 0).flatten(1))
        return torch.cat(parts, 1)

    def put_outgoing_(self, name: str, tensors: Mapping[str, Tensor], outgoing: Tensor) -> None:
        """Write what `outgoing` gave back into `tensors`."""
        start = 0
        for layer, columns in self._places[name]:
            weight = tensors[layer]
            shape = torch.Size((len(columns), weight.shape[0], columns.shape[1], *weight.shape[2:]))
            size = shape[1:].numel()
            part = outgoing[:, start : start + size].reshape(shape).movedim(0, 1).flatten(1, 2)
            if _whole(weight, columns):
                weight.copy_(part)
            else:
                weight[:, columns.flatten()] = part
            start += size


def _whole(weight: Tensor, columns: Tensor) -> bool:
    return torch.equal(columns.flatten(), torch.arange(weight.shape[1]))


def _columns(weight: Tensor, columns: Tensor) -> Tensor:
    # Indexing copies column by column, many times slower than taking all as they stand.
    return weight if _whole(weight, columns) else weight[:, columns.flatten()]


def across(factors: Tensor, weight: Tensor) -> Tensor:
    """`factors` (in,) shaped so that it multiplies the input columns of `weight` (out, in, ...)."""
    return factors.reshape(1, -1, *(1,) * (weight.ndim - 2))

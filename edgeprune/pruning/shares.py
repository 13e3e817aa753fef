"""What of the unpruned network's work and parameters is left at given widths, without making the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from torch import nn

from edgeprune.core.design import INPUTS
from edgeprune.pruning.axes.labels import Side
from edgeprune.pruning.structure import OWN, Structure


class Shares(NamedTuple):
    """Shares of the unpruned network's, in [0, 1]."""

    macs: float
    parameters: float
    #: Multiply-accumulates of kernels that take channels by blocks: every axis counts as rounded up to `BLOCK`.
    blocked: float


#: Channels that kernels with wide vector registers take at a time, whether they are there or not: 24 cost what 32 do
#: (ONNX Runtime on AVX-512). Two groups that lie side by side on an axis then save something only together.
BLOCK = 16


class LayerShares:
    """Multiply-accumulates and parameters of a network from the widths of its groups.

    A layer's are proportional to the channels it makes and to those it reads, layer by layer, and so is their sum; that
    is exact but for biases. Blocked ones count whole blocks on each axis. Layers without rows and columns (norms) go
    with the groups that lie in them. Products of activations count whole: they have no weights to tell their size by.
    """

    def __init__(self, network: nn.Module, structure: Structure) -> None:
        self._macs = sum(cost.macs for cost in structure.costs.values()) or 1
        self._parameters = sum(cost.parameters for cost in structure.costs.values()) or 1
        self._channels = {group.name: group.channels for group in structure.groups}
        lies = _lies(structure)
        self._layers = [
            (cost, _sized(network.get_submodule("" if name == OWN else name), "" if name == OWN else name, lies))
            for name, cost in structure.costs.items()
            if cost.macs or cost.parameters
        ]

    def __call__(self, widths: Mapping[str, int]) -> Shares:
        """What is left where each group has `widths[name]` channels; groups that are not named are whole."""
        left = {name: widths.get(name, channels) / channels for name, channels in self._channels.items()}
        macs, parameters, blocked = [], [], []
        for cost, tensors in self._layers:
            share, in_blocks = 0.0, 0.0
            whole = sum(size for size, _ in tensors)
            for size, axes in tensors:
                kept = [(channels, _left(axis, left)) for channels, axis in axes]
                share += size / whole * math.prod(part for _, part in kept)
                blocks = math.prod(_blocks(channels * part) / _blocks(channels) for channels, part in kept)
                in_blocks += size / whole * blocks
            macs.append(cost.macs * share)
            parameters.append(cost.parameters * share)
            blocked.append(cost.macs * in_blocks)
        return Shares(
            math.fsum(macs) / self._macs, math.fsum(parameters) / self._parameters, math.fsum(blocked) / self._macs
        )


def _blocks(channels: float) -> int:
    # What is a whole number comes as a product of shares.
    return max(1, math.ceil(round(channels, 6) / BLOCK))


def _lies(structure: Structure) -> dict[Side, dict[str, float]]:
    """What share of an axis each group has."""
    labelled = structure.graph.labelled
    owner = np.full(len(labelled.channels) + 1, -1)
    names = [group.name for group in structure.groups if group.name != INPUTS]
    for number, name in enumerate(names):
        owner[list(structure.graph.channels(name))] = number
    found: dict[Side, dict[str, float]] = {}
    for side, axis in labelled.axes.items():
        numbers, counts = np.unique(owner[axis], return_counts=True)
        found[side] = {
            names[i]: n / len(axis) for i, n in zip(numbers.tolist(), counts.tolist(), strict=True) if i >= 0
        }
    if structure.input_layer is not None and INPUTS in {group.name for group in structure.groups}:
        found[Side(f"{structure.input_layer}.weight", 1)] = {INPUTS: 1.0}
    return found


def _sized(module: nn.Module, name: str, lies: Mapping[Side, dict[str, float]]) -> _Tensors:
    """Sizes of the tensors that say how much a layer has to do, and what lies on their axes."""
    own = dict(module.named_parameters(name, recurse=isinstance(module, nn.MultiheadAttention)))
    weights = {name: parameter for name, parameter in own.items() if parameter.ndim > 1} or own
    return [
        (parameter.numel(), [(parameter.shape[axis], lies.get(Side(name, axis), {})) for axis in range(parameter.ndim)])
        for name, parameter in weights.items()
    ] or [(1, [])]


def _left(axis: Mapping[str, float], left: Mapping[str, float]) -> float:
    """The share of an axis that is left; what is of groups that stay is whole."""
    if len(axis) == 1 and next(iter(axis.values())) == 1.0:
        return left[next(iter(axis))]
    return 1.0 - sum(part * (1.0 - left[name]) for name, part in axis.items())


#: Sizes of tensors, and of each axis how long it is, and what share of it every group has.
_Tensors = list[tuple[int, list[tuple[int, dict[str, float]]]]]

"""What of the unpruned network's work and parameters is left at given widths, without making the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from edgeprune.core.design import INPUTS
from edgeprune.pruning.axes.labels import Side
from edgeprune.pruning.structure import OWN, Structure

Vector = npt.NDArray[np.float64]


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
        self._channels = {group.name: group.channels for group in structure.groups}
        number = {name: index for index, name in enumerate(self._channels)}
        lies = _lies(structure)
        starts: list[int] = []
        macs: list[float] = []
        parameters: list[float] = []
        lengths: list[int] = []
        rows: list[Vector] = []
        for name, cost in structure.costs.items():
            if not (cost.macs or cost.parameters):
                continue
            own = "" if name == OWN else name
            tensors = _sized(network.get_submodule(own), own, lies)
            whole = sum(size for size, _ in tensors)
            for size, axes in tensors:
                starts.append(len(rows))
                macs.append(cost.macs * size / whole)
                parameters.append(cost.parameters * size / whole)
                # What makes a product of none whole: a layer without a weight.
                for length, axis in axes or [(1, {})]:
                    lengths.append(length)
                    rows.append(np.zeros(len(number)))
                    for group, part in axis.items():
                        rows[-1][number[group]] = part
        #: A row an axis, a tensor's axes one after the other: which part of it each group has, and how long it is.
        self._parts, self._starts = np.array(rows).reshape(len(rows), len(number)), np.array(starts, dtype=np.int64)
        self._lengths, self._blocks = np.array(lengths, dtype=float), np.ceil(np.array(lengths) / BLOCK)
        self._macs, self._parameters = (np.array(each, dtype=float) / (sum(each) or 1) for each in (macs, parameters))

    def __call__(self, widths: Mapping[str, int]) -> Shares:
        """What is left where each group has `widths[name]` channels; groups that are not named are whole."""
        gone = np.array([1.0 - widths.get(name, channels) / channels for name, channels in self._channels.items()])
        # What is of groups that stay is whole.
        kept = 1.0 - self._parts @ gone
        # What is a whole number comes as a product of shares.
        blocks = np.ceil(np.round(self._lengths * kept, 6) / BLOCK) / self._blocks
        share, in_blocks = (np.multiply.reduceat(each, self._starts) for each in (kept, blocks))
        return Shares(float(self._macs @ share), float(self._parameters @ share), float(self._macs @ in_blocks))


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


#: Sizes of tensors, and of each axis how long it is, and what share of it every group has.
_Tensors = list[tuple[int, list[tuple[int, dict[str, float]]]]]

"""Which groups are the inside of a branch that only adds to what others make: all of such a group may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import cast, made, names_of, outputs_of, tensors_of
from edgeprune.pruning.axes.labels import RIGID, Side, among
from edgeprune.pruning.channels import Graph
from edgeprune.pruning.constant import Layer
from edgeprune.pruning.cost import input_dtype
from edgeprune.pruning.structure import Coupling

#: A share of what networks answer that rounding alone may change it by.
_NOISE = 1e-5
#: An axis of which nothing is known.
_NONE = np.full(1, RIGID)


def inside_branches(
    network: nn.Module, graph: Graph, couplings: Sequence[Coupling], order: Mapping[str, int]
) -> list[Coupling]:
    """Those of the groups without which the network is likely to go on: a trial has to show it.

    What reads them, and what is for nobody without them, must read nothing else, and each channel that it makes must be
    made by another layer, too: the stream of a residual network. At least one must be there before anything reads the
    stream (layers run in this `order`), or the branch is where it begins. All that goes must be among the `couplings`.
    """
    offered = {coupling.group.name for coupling in couplings}
    axes, roles = graph.labelled.axes, graph.labelled.roles
    made_by: dict[int, set[str]] = {}
    for side in (side for side in axes if "makes" in roles.get(side, ())):
        for channel in np.unique(axes[side]).tolist():
            made_by.setdefault(channel, set()).add(side.layer)
    # When the first layer reads each channel.
    first: dict[int, int] = {}
    readers_of = [side for side in axes if "reads" in roles.get(side, ())]
    for side in readers_of:
        for channel in np.unique(axes[side]).tolist():
            first[channel] = min(first.get(channel, len(order)), order.get(side.layer, len(order)))
    # Depthwise convolutions make of each channel what they were given of it.
    mixing = {side.layer for side in readers_of}
    passing = {
        layer
        for layer in set().union(*made_by.values()) - mixing
        if getattr(network.get_submodule(layer), "groups", 1) > 1
    }

    def only_adds(name: str) -> bool:
        gone = graph.for_nobody([name])
        makers, readers = graph.silenced([name])
        lost = np.sort(np.array([channel for each in gone for channel in graph.channels(each)], np.int64))
        reading = {side.layer for side in readers_of if among(axes[side], lost).any()}
        making = {layer for channel in lost.tolist() for layer in made_by.get(channel, ())}
        if not readers or not offered.issuperset(gone) or not reading <= {*makers, *readers}:
            return False
        if not all(isinstance(network.get_submodule(layer), Layer) for layer in {*making, *reading}):
            return False
        rows = {channel for layer in readers for channel in axes.get(Side(f"{layer}.weight", 0), _NONE).tolist()}
        others = {channel: made_by.get(channel, set()) - {*makers, *readers} - passing for channel in rows - {RIGID}}
        begun = any(
            order.get(layer, 0) < first.get(channel, len(order)) for channel in others for layer in others[channel]
        )
        return RIGID not in rows and all(others.values()) and begun

    return [coupling for coupling in couplings if only_adds(coupling.group.name)]


def heard(network: nn.Module, shape: Shape) -> frozenset[tuple[str, str]]:
    """Pairs of (output, input) of which the first changes with the second: of which the network says something.

    Raises whatever the network raises.
    """
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    inputs = cast(made(shape, 4, draw), input_dtype(network))
    found = set[tuple[str, str]]()
    for place, name in enumerate(names_of(inputs)):
        # The same example again and again, but for one of its inputs.
        tensors = [x if other == place else x[:1].expand_as(x) for other, x in enumerate(tensors_of(inputs))]
        with torch.no_grad():
            outputs = outputs_of(network(*tensors))
        found.update((output, name) for output, y in outputs.items() if _differ(y))
    return frozenset(found)


def _differ(answers: Tensor) -> bool:
    """Whether answers (N, ...) differ by more than arithmetic does."""
    answers = answers.detach().double()
    return float((answers - answers[:1]).abs().max()) > _NOISE * float(answers.abs().max().clamp(min=1e-6))

"""What the labels of a network's axes say: which channels hang together as a group, not yet proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from edgeprune.core.design import Group
from edgeprune.pruning.axes.labels import Side
from edgeprune.pruning.channels import Graph
from edgeprune.pruning.cost import WEIGHTED
from edgeprune.pruning.kinds import unprunable
from edgeprune.pruning.structure import Consumer, Coupling, Places


@dataclass(frozen=True, slots=True)
class Found:
    """A group as the graph has it, and what stands in its way."""

    coupling: Coupling
    #: Names of the parameters that lose rows or columns with a channel.
    cut: frozenset[str]
    #: Modules that read the channels but cannot be narrowed or refitted, and why.
    obstacles: Mapping[str, str]
    #: Why some of its channels cannot go.
    held: str | None = None


def couplings(network: nn.Module, graph: Graph, order: Mapping[str, int]) -> list[Found]:
    """Every group that a layer makes; the layers run in this `order`."""
    modules = dict(network.named_modules())
    return [_found(name, graph, modules, order) for name in graph.groups]


def _found(name: str, graph: Graph, modules: Mapping[str, nn.Module], order: Mapping[str, int]) -> Found:
    labelled, channels = graph.labelled, graph.channels(name)
    place = {channel: number for number, channel in enumerate(channels)}
    layers, consumers, rows, columns, cut = [], [], [], [], set()
    obstacles: dict[str, str] = {}
    for side, axis in labelled.axes.items():
        if not np.isin(axis, channels).any():
            continue
        module, roles = modules[side.layer], labelled.roles.get(side, frozenset())
        layers.append(side.layer)
        cut.add(side.tensor)
        lie = _lie(axis.tolist(), place)
        if "makes" in roles:
            rows.append(Places(side.tensor, side.axis, lie))
        if (why := unprunable(module)) is not None and roles:
            obstacles[side.layer] = why
        elif "reads" in roles and _is_refitted(module, side, order):
            consumers.append(Consumer(side.layer, lie))
        elif "reads" in roles:
            columns.append(Places(side.tensor, side.axis, lie))
    if not consumers and not columns and labelled.contracted.issuperset(channels):
        # Queries and keys: their products vanish with what makes them.
        columns = [
            Places(side.tensor, side.axis, _lie(axis.tolist(), place))
            for side, axis in labelled.axes.items()
            if np.isin(axis, channels).any()
        ]
    made = {each.tensor.rpartition(".")[0]: each.tensor for each in rows}
    # First the one by which the group is called.
    called = name.partition("#")[0]
    makers = sorted(
        made,
        key=lambda layer: (called not in (layer, made[layer].removesuffix(".weight")), order.get(layer, len(order))),
    )
    kind: Literal["neurons", "channels"] = "neurons" if isinstance(modules[makers[0]], nn.Linear) else "channels"
    own = next(len(each.places[0]) for each in rows if each.tensor == made[makers[0]])
    coupled = tuple(dict.fromkeys((*makers, *layers)))
    group = Group(name, len(channels), 1, 1, 0.0, 0.0, 0, coupled, kind, rows_per_channel=own)
    held = next((labelled.held[channel] for channel in channels if channel in labelled.held), None)
    coupling = Coupling(group, tuple(makers), tuple(consumers), tuple(rows), tuple(columns))
    return Found(coupling, frozenset(cut), obstacles, held)


def _lie(axis: Sequence[int], number: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    """Places of each channel on an axis."""
    found: list[list[int]] = [[] for _ in number]
    for place, channel in enumerate(axis):
        if channel in number:
            found[number[channel]].append(place)
    return tuple(map(tuple, found))


def _is_refitted(module: nn.Module, side: Side, order: Mapping[str, int]) -> bool:
    """Whether the layer that reads there can be fitted anew to what is left."""
    # A layer that does not run has its weights read by another: nobody can listen to what it receives.
    if (
        not isinstance(module, WEIGHTED)
        or side.layer not in order
        or side.axis != 1
        or not side.tensor.endswith("weight")
    ):
        return False
    return isinstance(module, nn.Linear) or (module.groups == 1 and not isinstance(module, nn.Conv3d))

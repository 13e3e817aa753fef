"""What torch-pruning's dependency graph says of a network: which channels hang together, not yet proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from edgeprune.core.design import Group
from edgeprune.core.inputs import Shape
from edgeprune.pruning.cost import WEIGHTED
from edgeprune.pruning.kinds import unprunable
from edgeprune.pruning.structure import Consumer, Coupling
from edgeprune.pruning.surgery import build_graph


@dataclass(frozen=True, slots=True)
class Found:
    """A group as the graph has it, and what stands in its way."""

    coupling: Coupling
    #: Names of the parameters that lose rows or columns with a channel.
    cut: frozenset[str]
    #: Modules that read the channels but cannot be narrowed or refitted, and why.
    obstacles: Mapping[str, str]


def couplings(network: nn.Module, shape: Shape, order: Mapping[str, int]) -> list[Found]:
    """Every group of the dependency graph that convolutions and linear layers make.

    A group bears the name of the maker that runs first (by `order`).
    """
    graph = build_graph(network, shape)
    modules = {module: name for name, module in network.named_modules()}
    parameters = {parameter: name for name, parameter in network.named_parameters()}
    found = []
    for raw in graph.get_all_groups():
        each = _coupling(raw, modules, parameters, order)
        if each is not None:
            found.append(each)
    return found


def _coupling(
    raw: Any, modules: Mapping[nn.Module, str], parameters: Mapping[nn.Parameter, str], order: Mapping[str, int]
) -> Found | None:
    owners = {name: module for module, name in modules.items()}
    makers: list[tuple[bool, int, str]] = []
    consumers: list[Consumer] = []
    layers: list[str] = []
    cut: set[str] = set()
    obstacles: dict[str, str] = {}
    channels = len(raw[0].idxs)
    for item in raw:
        module, handler = item.dep.target.module, item.dep.handler.__name__
        if isinstance(module, nn.Parameter) and module in parameters:
            # A parameter outside of the layers that torch-pruning knows: a scale, or a weight of a recurrent layer.
            cut.add(parameters[module])
            owner = parameters[module].rpartition(".")[0]
            why = unprunable(owners[owner])
            if why is not None:
                obstacles[owner] = why
            continue
        name = modules.get(module)
        if name is None:
            continue
        layers.append(name)
        reads = handler == "prune_in_channels"
        own = ("weight",) if reads and isinstance(module, WEIGHTED) else dict(module.named_parameters(recurse=False))
        cut.update(f"{name}.{each}" for each in own)
        why = unprunable(module)
        if why is not None and reads:
            obstacles[name] = why
        if not isinstance(module, WEIGHTED):
            continue
        if reads and (module.groups if not isinstance(module, nn.Linear) else 1) > 1:
            obstacles[name] = "grouped convolutions are not refitted yet"
        elif reads and isinstance(module, nn.Conv3d):
            obstacles[name] = "3-D convolutions are not refitted yet"
        elif reads:
            columns: list[list[int]] = [[] for _ in range(channels)]
            roots = item.root_idxs if item.root_idxs is not None else range(len(item.idxs))
            for column, root in zip(item.idxs, roots, strict=True):
                columns[root].append(column)
            consumers.append(Consumer(name, tuple(tuple(sorted(each)) for each in columns)))
        elif isinstance(module, nn.Linear) or module.groups == 1:
            # A maker whose channels sit elsewhere in the group (behind a concatenation) cannot give it its name.
            aligned = len(item.idxs) == channels and list(item.idxs) == list(item.root_idxs or item.idxs)
            makers.append((not aligned, order.get(name, len(order)), name))
    if not makers:
        return None
    ordered = tuple(name for *_, name in sorted(makers))
    kind: Literal["neurons", "channels"] = "neurons" if isinstance(owners[ordered[0]], nn.Linear) else "channels"
    group = Group(ordered[0], channels, 1, 1, 0.0, 0.0, 0, tuple(dict.fromkeys(layers)), kind)
    return Found(Coupling(group, ordered, tuple(consumers)), frozenset(cut), obstacles)

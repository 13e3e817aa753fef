"""Which groups are the inside of a branch that only adds to what others make: all of such a group may go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import cast, made, names_of, outputs_of, tensors_of
from edgeprune.pruning.axes.labels import RIGID, Side
from edgeprune.pruning.channels import Graph
from edgeprune.pruning.constant import Layer
from edgeprune.pruning.cost import input_dtype, tensor_of
from edgeprune.pruning.structure import Coupling

#: A share of what networks answer that rounding alone may change it by.
_NOISE = 1e-5


def inside_branches(network: nn.Module, graph: Graph, couplings: Sequence[Coupling]) -> list[Coupling]:
    """Those of the groups without which the network is likely to go on: a trial has to show it.

    Their readers must read nothing else, and each channel that these make must be made by another layer, too: the
    stream of a residual network. And no other group may be read by a group's makers alone: it would be for nobody.
    """
    made_by: dict[int, set[str]] = {}
    for side, roles in graph.labelled.roles.items():
        for channel in np.unique(graph.labelled.axes[side]) if "makes" in roles and side in graph.labelled.axes else ():
            made_by.setdefault(int(channel), set()).add(side.layer)

    def only_adds(coupling: Coupling) -> bool:
        makers = set(coupling.makers)
        for consumer in coupling.consumers:
            weight = tensor_of(network, f"{consumer.layer}.weight")
            axis = graph.labelled.axes.get(Side(f"{consumer.layer}.weight", 0))
            if sum(map(len, consumer.columns)) != weight.shape[1] or axis is None or RIGID in axis:
                return False
            if not all(made_by.get(channel, set()) - {*makers, consumer.layer} for channel in axis.tolist()):
                return False
        return bool(coupling.consumers)

    found = []
    for coupling in couplings:
        makers = set(coupling.makers)
        plain = all(isinstance(network.get_submodule(name), Layer) for name in (*makers, *coupling.readers))
        own = {each.tensor.rpartition(".")[0] for each in coupling.columns} <= makers
        needed = any(other.readers and other.readers <= makers for other in couplings if other is not coupling)
        if plain and own and not needed and only_adds(coupling):
            found.append(coupling)
    return found


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

"""Which groups are the inside of a branch that only adds to what others make: all of such a group may go."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import cast, made, names_of, outputs_of, tensors_of
from edgeprune.pruning.axes.labels import RIGID, Side
from edgeprune.pruning.channels import Graph
from edgeprune.pruning.cost import WEIGHTED, input_dtype
from edgeprune.pruning.structure import Coupling

#: A share of what networks answer that rounding alone may change it by.
_NOISE = 1e-5


def inside_branch(network: nn.Module, graph: Graph, coupling: Coupling, others: Iterable[Coupling]) -> bool:
    """Whether the network is likely to go on without the group: a trial has to show it.

    Its readers must read nothing else, and each channel that they make must be made by another layer, too: the stream
    of a residual network. And no group of the `others` may be read by its makers alone: that would make it for nobody.
    """
    makers = set(coupling.makers)
    kinds = all(isinstance(network.get_submodule(name), WEIGHTED) for name in (*makers, *coupling.readers))
    reads = bool(coupling.consumers) and {each.tensor.rpartition(".")[0] for each in coupling.columns} <= makers
    if not kinds or not reads or any(other.readers and other.readers <= makers for other in others):
        return False
    made: dict[str, set[int]] = {}
    for side, roles in graph.labelled.roles.items():
        if "makes" in roles and side in graph.labelled.axes:
            made.setdefault(side.layer, set()).update(np.unique(graph.labelled.axes[side]).tolist())
    for consumer in coupling.consumers:
        weight = network.get_submodule(consumer.layer).weight
        axis = graph.labelled.axes.get(Side(f"{consumer.layer}.weight", 0))
        if sum(map(len, consumer.columns)) != weight.shape[1] or axis is None:  # type: ignore[index, union-attr]
            return False
        elsewhere = set().union(*(channels for layer, channels in made.items() if layer not in {*makers, consumer.layer}))
        if RIGID in axis or not elsewhere.issuperset(axis.tolist()):
            return False
    return True


def heard(network: nn.Module, shape: Shape) -> frozenset[tuple[str, str]]:
    """Pairs of (output, input) of which the first changes with the second: of which the network says something.

    Raises whatever the network raises.
    """
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    inputs = cast(made(shape, 4, draw), input_dtype(network))
    found = set()
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

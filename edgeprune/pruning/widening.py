"""Surgery undone: the weights of a pruned network in the shape of the one it was cut from."""

from __future__ import annotations

import itertools
from copy import deepcopy

import torch
from torch import Tensor, nn

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.pruning.axes.labels import Side
from edgeprune.pruning.structure import Structure


def widen(network: nn.Module, structure: Structure, plan: PruningPlan, pruned: nn.Module) -> nn.Module:
    """The weights of `pruned`, which is `network` cut by `plan`, in the shape of `network`: what was cut away is zero.

    It computes what `pruned` does, and speaks of channels as `network` does.
    """
    wide = deepcopy(network).eval()
    state = wide.state_dict()
    # A parameter with several names was labelled by its first.
    first = {id(parameter): name for name, parameter in reversed([*network.named_parameters(remove_duplicate=False)])}
    labelled = {name: first[id(parameter)] for name, parameter in network.named_parameters(remove_duplicate=False)}
    # A network whose inputs were selected has the layer that reads them one level down.
    inner = f"{structure.input_layer}.linear."
    gone = structure.graph.gone(plan)
    with torch.no_grad():
        for layer in itertools.chain(*structure.graph.stilled(plan)):
            wide.get_submodule(layer).weight.zero_()  # type: ignore[operator]
        for name, narrow in pruned.state_dict().items():
            if name == f"{structure.input_layer}.kept":
                continue
            own = name.replace(inner, f"{structure.input_layer}.") if name.startswith(inner) else name
            if state[own].shape == narrow.shape:
                state[own].copy_(narrow)
                continue
            sides = (Side(labelled.get(own, own), axis) for axis in range(narrow.ndim))
            left = [structure.graph.left(side, state[own].shape[side.axis], gone) for side in sides]
            if own == f"{structure.input_layer}.weight" and INPUTS in plan.kept:
                left[1] = list(plan.kept[INPUTS])
            places: tuple[Tensor, ...] = torch.meshgrid([torch.tensor(each) for each in left], indexing="ij")
            state[own].zero_()[places] = narrow
    return wide

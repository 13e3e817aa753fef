"""Surgery undone: the weights of a pruned network in the shape of the one it was cut from."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from edgeprune.core.design import PruningPlan
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut


def widen(network: nn.Module, structure: Structure, plan: PruningPlan, pruned: nn.Module) -> nn.Module:
    """The weights of `pruned`, which is `network` cut by `plan`, in the shape of `network`: what was cut away is zero.

    It computes what `pruned` does, and speaks of channels as `network` does.
    """
    rows = _indices(network, structure, plan, 0)
    columns = _indices(network, structure, plan, 1)
    wide = deepcopy(network).eval()
    state = wide.state_dict()
    # A network whose inputs were selected has the layer that reads them one level down.
    inner = f"{structure.input_layer}.linear."
    with torch.no_grad():
        for name, narrow in pruned.state_dict().items():
            if name == f"{structure.input_layer}.kept":
                continue
            own = name.replace(inner, f"{structure.input_layer}.") if name.startswith(inner) else name
            if name not in rows:
                state[own].copy_(narrow)
                continue
            state[own].zero_()
            place: tuple[Tensor, ...] = (rows[name],)
            if name in columns:
                place = (rows[name][:, None], columns[name])
            state[own][place] = narrow
    return wide


def _indices(network: nn.Module, structure: Structure, plan: PruningPlan, axis: int) -> dict[str, Tensor]:
    """Which rows (axis 0) or columns (axis 1) of each floating tensor `plan` keeps, by the tensor's name when cut.

    Surgery itself is asked: it cuts a copy in which every number is the index of its own place.
    """
    numbered = deepcopy(network)
    with torch.no_grad():
        for tensor in numbered.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim > axis:
                shape = [1] * tensor.ndim
                shape[axis] = -1
                tensor.copy_(torch.arange(tensor.shape[axis]).reshape(shape).expand_as(tensor))
    kept = {}
    for name, tensor in cut(numbered, structure.shape, plan).state_dict().items():
        if tensor.is_floating_point() and tensor.ndim > axis:
            kept[name] = tensor.movedim(axis, 0).flatten(1)[:, 0].long() if tensor.ndim > 1 else tensor.long()
    return kept

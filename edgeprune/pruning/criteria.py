"""Which channels go first, and what the layers that read them become.

| criterion | ranking | repair |
|---|---|---|
| `l1` | [ACNN] (1): ascending L1 norm of each neuron's weights | none |
| `reconstruction` | greedy choice of the channels that best rebuild what the group's readers put out | least squares |

Both rankings are nested: one order per group serves every width.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from edgeprune.core.types import PruningPlan
from edgeprune.pruning.cost import Weighted, weighted
from edgeprune.pruning.structure import Consumer, Coupling, Structure
from edgeprune.pruning.surgery import mask

#: Share of the mean diagonal that is added to Gram matrices, so that dead and duplicate channels do no harm.
RIDGE = 1e-6
#: Refits that are kept, oldest dropped first: widths come again and again while searching.
_REFITS = 256


class _Ranked:
    def __init__(self, network: nn.Module, structure: Structure, orders: dict[str, list[int]]) -> None:
        self._network = network
        self._structure = structure
        self._orders = orders

    def plan(self, widths: dict[str, int]) -> PruningPlan:
        """The plan that keeps the best `widths[name]` channels of each group."""
        return PruningPlan({name: tuple(sorted(self._orders[name][:width])) for name, width in widths.items()})

    def weights(self, plan: PruningPlan) -> nn.Module:
        """The full-size network whose readers ignore what `plan` removes."""
        return mask(self._network, self._structure.couplings, plan)


class L1(_Ranked):
    """[ACNN] (1)-(2): neurons with the smallest L1 norm of their weights go first; nothing is repaired.

    Of an input feature the weights are its column in the first layer; of a coupled channel, those of all its makers.
    """

    def __init__(self, network: nn.Module, structure: Structure) -> None:
        orders = {}
        for coupling in structure.couplings:
            norms = torch.zeros(coupling.group.channels, dtype=torch.float64)
            for maker in coupling.makers:
                norms += _weight(network, maker).abs().flatten(1).sum(1)
            if not coupling.makers:
                norms += _weight(network, coupling.consumers[0].layer).abs().sum(0)
            orders[coupling.group.name] = torch.argsort(norms, descending=True, stable=True).tolist()
        super().__init__(network, structure, orders)


class Reconstruction(_Ranked):
    """Keeps the channels from which the readers' outputs are rebuilt best, and refits the readers by least squares.

    Forward selection by the drop of the squared output error (orthogonal least squares, the multi-response form of
    matching pursuit), over all readers of a group together, each scaled by its output's energy. The refit minimises
    E||W x - V x_kept||^2 over calibration data (as AMC's and He et al. 2017's channel pruning do).
    """

    def __init__(self, network: nn.Module, structure: Structure, grams: dict[str, Tensor]) -> None:
        self._grams = grams
        self._refits: dict[tuple[str, tuple[tuple[str, int], ...]], Tensor] = {}
        orders = {c.group.name: _select(network, c, grams) for c in structure.couplings}
        super().__init__(network, structure, orders)
        #: A layer may read several groups (behind a concatenation): it is refitted to what is left of all of them.
        self._readers: dict[str, list[tuple[str, Consumer]]] = {}
        for coupling in structure.couplings:
            for consumer in coupling.consumers:
                self._readers.setdefault(consumer.layer, []).append((coupling.group.name, consumer))

    def weights(self, plan: PruningPlan) -> nn.Module:
        """The full-size network whose readers ignore what `plan` removes and are refitted to what is left.

        `plan` is one of `plan()`: since orders are nested, a reader and the widths of its groups name one refit.
        """
        repaired = deepcopy(self._network).eval()
        for layer, groups in self._readers.items():
            narrowed = [(name, consumer) for name, consumer in groups if name in plan.kept]
            if not narrowed:
                continue
            key = (layer, tuple((name, len(plan.kept[name])) for name, _ in narrowed))
            if key not in self._refits:
                if len(self._refits) >= _REFITS:
                    self._refits.pop(next(iter(self._refits)))
                gone = [_gone(self._network, consumer, plan.kept[name]) for name, consumer in narrowed]
                self._refits[key] = _refit(self._network, layer, self._grams[layer], torch.cat(gone))
            _assign(weighted(repaired, layer), self._refits[key])
        return repaired


def _weight(network: nn.Module, layer: str) -> Tensor:
    return weighted(network, layer).weight.detach().double()


def _augmented(network: nn.Module, layer: str) -> Tensor:
    """Weights (out, p) with the bias as last column where there is one, float64."""
    weight = _weight(network, layer).flatten(1)
    bias = weighted(network, layer).bias
    return weight if bias is None else torch.cat([weight, bias.detach().double()[:, None]], 1)


def _blocks(network: nn.Module, consumer: Consumer) -> Tensor:
    """Columns of the unrolled weights that belong to each channel: (channels, s) int64."""
    taps = int(_weight(network, consumer.layer)[0, 0].numel())
    columns = torch.tensor(consumer.columns)
    return (columns[:, :, None] * taps + torch.arange(taps)).flatten(1)


def _select(network: nn.Module, coupling: Coupling, grams: dict[str, Tensor]) -> list[int]:
    """Channels from most to least useful."""
    channels = coupling.group.channels
    # From this width on several channels are taken per step: a step costs a pass over the whole matrix.
    per_step = max(1, channels // 512)
    states = []
    for consumer in coupling.consumers:
        gram, weight = grams[consumer.layer], _augmented(network, consumer.layer)
        blocks = _blocks(network, consumer)
        residual = gram.clone()
        residual.diagonal().add_(RIDGE * gram.diagonal().mean())
        cross = weight @ residual
        others = torch.ones(weight.shape[1], dtype=torch.bool)
        others[blocks.flatten()] = False
        if others.any():
            # The constant, and what comes from other groups, is kept in any case: take it out first.
            _eliminate(residual, cross, others.nonzero()[:, 0])
        energy = torch.einsum("ij,jk,ik->", weight, gram, weight).clamp(min=1e-30)
        states.append((residual, cross, blocks, energy))
    left = torch.ones(channels, dtype=torch.bool)
    order: list[int] = []
    while len(order) < channels:
        gains = torch.zeros(channels, dtype=torch.float64)
        for residual, cross, blocks, energy in states:
            gains += _gains(residual, cross, blocks, left) / energy
        gains[~left] = -torch.inf
        best = torch.argsort(gains, descending=True, stable=True)[: min(per_step, channels - len(order))]
        for residual, cross, blocks, _ in states:
            _eliminate(residual, cross, blocks[best].flatten())
        left[best] = False
        order.extend(best.tolist())
    return order


def _gains(residual: Tensor, cross: Tensor, blocks: Tensor, left: Tensor) -> Tensor:
    """Drop of the squared error for taking each channel next: trace(M_b R_bb^-1 M_b'), M = W R. (channels,)"""
    gains = torch.zeros(len(blocks), dtype=torch.float64)
    if blocks.shape[1] == 1:
        columns = blocks[:, 0]
        return cross[:, columns].square().sum(0) / residual.diagonal()[columns].clamp(min=1e-30)
    todo = blocks[left]
    inner = residual[todo[:, :, None], todo[:, None, :]]
    inner = inner + torch.eye(inner.shape[1], dtype=inner.dtype) * _ridge(inner.diagonal(dim1=1, dim2=2))
    parts = cross[:, todo.flatten()].reshape(len(cross), len(todo), -1).permute(1, 2, 0)
    gains[left] = (parts * torch.linalg.solve(inner, parts)).sum((1, 2))
    return gains


def _eliminate(residual: Tensor, cross: Tensor, columns: Tensor) -> None:
    """Condition on `columns`, in place: R -= R[:, b] R[b, b]^-1 R[b, :] and M = W R likewise."""
    rows = residual[columns]
    block = rows[:, columns]
    solved = torch.linalg.solve(block + torch.eye(len(block), dtype=block.dtype) * _ridge(block.diagonal()), rows)
    cross.addmm_(cross[:, columns].clone(), solved, alpha=-1)
    residual.addmm_(rows.T, solved, alpha=-1)


def _ridge(diagonal: Tensor) -> Tensor:
    return diagonal.mean().clamp(min=1e-30) * RIDGE


def _gone(network: nn.Module, consumer: Consumer, kept: tuple[int, ...]) -> Tensor:
    """Columns of the unrolled weights that `kept` leaves out."""
    left = torch.ones(len(consumer.columns), dtype=torch.bool)
    left[list(kept)] = False
    return _blocks(network, consumer)[left].flatten()


def _refit(network: nn.Module, layer: str, gram: Tensor, gone: Tensor) -> Tensor:
    """Weights (out, p), float32, that are zero in the columns `gone` and best rebuild the layer's output."""
    weight = _augmented(network, layer)
    if not len(gone):
        return weight.float()
    left = torch.ones(weight.shape[1], dtype=torch.bool)
    left[gone] = False
    columns = left.nonzero()[:, 0]
    inner = gram[columns][:, columns].clone()
    inner.diagonal().add_(RIDGE * inner.diagonal().mean())
    fitted = torch.zeros_like(weight, dtype=torch.float32)
    fitted[:, columns] = torch.linalg.solve(inner, gram[columns] @ weight.T).T.float()
    return fitted


def _assign(layer: Weighted, fitted: Tensor) -> None:
    weight, bias = layer.weight, layer.bias
    size = weight[0].numel()
    with torch.no_grad():
        weight.copy_(fitted[:, :size].reshape(weight.shape).to(weight.dtype))
        if bias is not None:
            bias.copy_(fitted[:, size].to(bias.dtype))

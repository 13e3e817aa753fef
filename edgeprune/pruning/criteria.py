"""Which channels go first, and what the layers that read them become: a ranking (see `rankings`) and a repair.

| repair | the readers' weights |
|---|---|
| none | as they were; what is gone is masked |
| least squares | those that minimise E||W x - V x_kept||^2 over calibration data (He et al. 2017, eq. 3) |

A reader that the user froze (requires_grad=False) is never refitted.

Rankings are nested: one order per group serves every width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.core.design import PruningPlan
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Consumer, Structure
from edgeprune.pruning.surgery import ignore, mask

#: Share of the mean diagonal that is added to Gram matrices, so that dead and duplicate channels do no harm.
RIDGE = 1e-6
#: Refits that are kept, oldest dropped first: widths come again and again while searching.
_REFITS = 256
#: Numbers in all refits that are kept (float32: half a gigabyte).
_REFIT_NUMBERS = 128_000_000

#: A reader, and what is kept of the groups it reads.
_Key = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]


@dataclass(frozen=True)
class Ranking:
    """Channels by usefulness, and what share of the importance goes with the rest.

    | field | per group | |
    |---|---|---|
    | `order` | (channels,) | channels from most to least useful |
    | `lost` | (channels + 1,) | `lost[w]`: share of the importance lost when only the first w stay; falls from 1 to 0 |

    Importance is the sum of the scores, or for reconstruction the energy of the readers' outputs that depends on the
    group. Where no channel matters at all, `lost` is 1 at width 0 and 0 beyond.
    """

    order: Mapping[str, tuple[int, ...]]
    lost: Mapping[str, tuple[float, ...]]

    def errors(self) -> dict[str, tuple[float, ...]]:
        """`lost` as it adds up over groups: its square root, since what is lost is an energy."""
        return {name: tuple(math.sqrt(share) for share in shares) for name, shares in self.lost.items()}


class Ranked:
    """A `Criterion`: the first channels of a ranking stay; with `grams` the readers are refitted by least squares.

    `grams` are those of `calibration.gram_matrices` for every reader. Without them readers are only masked.
    """

    def __init__(
        self, network: nn.Module, structure: Structure, ranking: Ranking, grams: Mapping[str, Tensor] | None
    ) -> None:
        self.ranking = ranking
        self._network = network
        self._structure = structure
        #: A layer may read several groups (behind a concatenation): it is refitted to what is left of all of them.
        self._groups: dict[str, list[tuple[str, Consumer]]] = {}
        for coupling in structure.couplings:
            for consumer in coupling.consumers:
                self._groups.setdefault(consumer.layer, []).append((coupling.group.name, consumer))
        self._refits: dict[str, _Refit] | None = None
        if grams is not None:
            self._refits = {
                layer: self._refit(layer, grams[layer])
                for layer, groups in self._groups.items()
                if all(consumer.refit for _, consumer in groups)
            }
        self._known: dict[_Key, Tensor] = {}

    def plan(self, widths: dict[str, int]) -> PruningPlan:
        """The plan that keeps the best `widths[name]` channels of each group."""
        return PruningPlan({name: tuple(sorted(self.ranking.order[name][:width])) for name, width in widths.items()})

    def weights(self, plan: PruningPlan) -> nn.Module:
        """A full-size copy of the network whose readers ignore what `plan` removes, refitted if there are `grams`."""
        if self._refits is None:
            return mask(self._network, self._structure.couplings, plan)
        replaced: dict[int, object] = {}
        for layer, groups in self._groups.items():
            narrowed = [(name, consumer) for name, consumer in groups if name in plan.kept]
            gone = [_gone(self._network, consumer, plan.kept[name]) for name, consumer in narrowed]
            if not any(map(len, gone)):
                continue
            if layer not in self._refits:
                weight = weighted(self._network, layer).weight
                replaced[id(weight)] = _without(weight, torch.cat(gone))
                continue
            key = (layer, tuple((name, plan.kept[name]) for name, _ in narrowed))
            if key not in self._known:
                self._remember(key, self._refits[layer].without(torch.cat(gone)))
            replaced |= _parameters(self._network, layer, self._known[key])
        # The memo holds what has been copied already: here, what need not be copied since it is replaced.
        masked = deepcopy(self._network, replaced).eval()
        for coupling in self._structure.couplings:
            if coupling.group.name in plan.kept:
                ignore(masked, coupling, set(plan.kept[coupling.group.name]))
        return masked

    def _refit(self, layer: str, gram: Tensor) -> _Refit:
        ranked = None
        if len(self._groups[layer]) == 1:
            name, consumer = self._groups[layer][0]
            ranked = blocks(self._network, consumer)[list(self.ranking.order[name])].flatten()
        return _Refit(self._network, layer, gram, ranked)

    def _remember(self, key: _Key, fitted: Tensor) -> None:
        self._known[key] = fitted
        numbers = sum(each.numel() for each in self._known.values())
        while len(self._known) > 1 and (len(self._known) > _REFITS or numbers > _REFIT_NUMBERS):
            numbers -= self._known.pop(next(iter(self._known))).numel()


class _Refit:
    """One reader's normal equations, ready for any choice of columns.

    `ranked` are the columns of the group it reads, the best first, where it reads one group. Since plans keep the first
    of them, one Cholesky factor of the Gram matrix in that order serves all: its leading part is that of any width.
    """

    def __init__(self, network: nn.Module, layer: str, gram: Tensor, ranked: Tensor | None) -> None:
        self._gram = gram
        self._target = gram @ augmented(network, layer).T
        self._ranked = ranked
        self._nested: tuple[Tensor, Tensor, Tensor] | None = None

    def without(self, gone: Tensor) -> Tensor:
        """Weights (out, p), float32, that are zero in the columns `gone` and best rebuild the layer's output."""
        fitted = torch.zeros(self._target.shape[::-1])
        ranked = self._ranked
        if ranked is not None and torch.equal(ranked[len(ranked) - len(gone) :].sort().values, gone.sort().values):
            order, factor, halfway = self._nested = self._nested or self._factor(ranked)
            columns = order[: len(order) - len(gone)]
            leading = factor[: len(columns), : len(columns)]
            found = torch.linalg.solve_triangular(leading.T, halfway[: len(columns)], upper=True)
        else:
            left = torch.ones(len(self._gram), dtype=torch.bool)
            left[gone] = False
            columns = left.nonzero()[:, 0]
            found = torch.cholesky_solve(self._target[columns], cholesky(self._gram[columns][:, columns]))
        fitted[:, columns] = found.T.float()
        return fitted

    def _factor(self, ranked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Columns in order, what plans never remove first; L of the Gram matrix in that order; L^-1 of the target."""
        others = torch.ones(len(self._gram), dtype=torch.bool)
        others[ranked] = False
        order = torch.cat([others.nonzero()[:, 0], ranked])
        factor = cholesky(self._gram[order][:, order])
        return order, factor, torch.linalg.solve_triangular(factor, self._target[order], upper=False)


def cholesky(gram: Tensor) -> Tensor:
    """Lower Cholesky factor; the ridge is put on `gram` in place, and a greater one where that is not enough."""
    ridge = RIDGE * gram.diagonal().abs().mean().clamp(min=1e-30)
    for _ in range(10):
        gram.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if not failed:
            break
        ridge = 10 * ridge
    else:
        # Not a number, say: this raises.
        factor = torch.linalg.cholesky(gram)
    return factor  # type: ignore[no-any-return]


def augmented(network: nn.Module, layer: str) -> Tensor:
    """Unrolled weights (out, p) with the bias as last column where there is one, float64."""
    module = weighted(network, layer)
    weight = module.weight.detach().double().flatten(1)
    return weight if module.bias is None else torch.cat([weight, module.bias.detach().double()[:, None]], 1)


def blocks(network: nn.Module, consumer: Consumer) -> Tensor:
    """Columns of the unrolled weights that belong to each channel: (channels, s) int64."""
    taps = int(weighted(network, consumer.layer).weight[0, 0].numel())
    columns = torch.tensor(consumer.columns)
    return (columns[:, :, None] * taps + torch.arange(taps)).flatten(1)


def _gone(network: nn.Module, consumer: Consumer, kept: tuple[int, ...]) -> Tensor:
    """Columns of the unrolled weights that `kept` leaves out."""
    left = torch.ones(len(consumer.columns), dtype=torch.bool)
    left[list(kept)] = False
    return blocks(network, consumer)[left].flatten()


def _without(weight: Tensor, gone: Tensor) -> nn.Parameter:
    """A copy of a reader's weight that is zero in the unrolled columns `gone`, and as it was everywhere else."""
    values = weight.detach().flatten(1).clone()
    values[:, gone] = 0.0
    return nn.Parameter(values.reshape(weight.shape), weight.requires_grad)


def _parameters(network: nn.Module, layer: str, fitted: Tensor) -> dict[int, object]:
    """Fresh parameters of a layer, by the identity of those they replace."""
    module = weighted(network, layer)
    weight, bias = module.weight, module.bias
    size = weight[0].numel()

    def parameter(values: Tensor, like: Tensor) -> nn.Parameter:
        return nn.Parameter(values.clone().reshape(like.shape).to(like.dtype), like.requires_grad)

    new: dict[int, object] = {id(weight): parameter(fitted[:, :size], weight)}
    if bias is not None:
        new[id(bias)] = parameter(fitted[:, size], bias)
    return new

"""CGES (Yoon and Hwang, ICML 2017): combined group and exclusive sparsity, by proximal steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.progress import Progress
from edgeprune.papers.methods.columns import Columns, PerChannel
from edgeprune.papers.methods.compressed import Compressed, Recipe
from edgeprune.papers.methods.control import compress, descend, strongest
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Structure
from edgeprune.training.batches import Batches

#: m of the paper: the share of exclusive sparsity in the first layer; the last has 1 - m.
FIRST = 0.2
#: Adam's, which keeps steps finite where gradients vanish.
EPSILON = 1e-8


def cges(
    network: nn.Module,
    structure: Structure,
    train_set: Batches,
    validation: Batches,
    *,
    ncr: float,
    recipe: Recipe,
    progress: Progress,
) -> Compressed:
    """Train the given, already trained network with the penalty of Yoon and Hwang until its NCR is `ncr`.

    With w_c the weights that read channel c (the paper's groups: all weights of a feature), the penalty of layer l is
    strength * sum over c of (1 - mu_l) ||w_c||_2 + mu_l / 2 ||w_c||_1^2, where mu_l = m + (1 - 2m) l / (L - 1) grows
    with depth: below, features are dropped as a whole; above, neurons compete for them. After each gradient step the
    proximal operators of both terms are applied one after the other. A channel whose weights the first leaves all zero
    is gone. An input feature is a channel like any other: its weights are its column of the first layer.

    The paper descends plainly; here AdamW does, whose step size differs per weight, and the proximal step must have the
    same one: the learning rate over the root of the channel's mean squared gradient, as Adam tracks it. (With the bare
    learning rate steep and flat gradients go alike: 84.6 % instead of 91.6 % on digits at NCR 2.)

    The paper weighs the terms per layer by hand. Here they have weights sqrt(d) and 1 / sqrt(d), d the length of w_c:
    both then shrink equal weights of ||w_c||_2 = 1 by the same amount. The strongest `floor` channels of a group are
    spared by the first term. For strength, schedule, errors: `edgeprune.papers.methods.control`.
    """

    def make(network: nn.Module, columns: Columns, optimizer: torch.optim.Optimizer, _ramp: int) -> _CGES:
        return _CGES(network, columns, optimizer)

    return compress(make, network, structure, train_set, validation, ncr=ncr, recipe=recipe, progress=progress)


class _CGES:
    title = "CGES"

    def __init__(self, network: nn.Module, columns: Columns, optimizer: torch.optim.Optimizer) -> None:
        self._network = network
        self._columns = columns
        self._optimizer = optimizer
        self._margins: dict[str, Tensor] = {}

    def step(self, x: Tensor, y: Tensor, strength: float) -> float:
        loss = descend(self._optimizer, F.cross_entropy(self._network(x), y))
        rate, beta = (self._optimizer.param_groups[0][key] for key in ("lr", "betas"))
        weights, squares = {}, {}
        for layer in self._columns.layers:
            weight = weighted(self._network, layer).weight
            adam = self._optimizer.state[weight]
            weights[layer] = weight.detach()
            squares[layer] = adam["exp_avg_sq"] / (1 - beta[1] ** float(adam["step"]))
        for depth, group in enumerate(self._columns.groups):
            own = self._columns.outgoing(group.name, weights)
            steepness = self._columns.outgoing(group.name, squares).mean(1, keepdim=True).sqrt() + EPSILON
            step_size = strength * rate / steepness
            mu, root = exclusive_share(depth, len(self._columns.groups)), own.shape[1] ** 0.5
            thresholds = step_size * (1 - mu) * root
            margins = (own.norm(dim=1, keepdim=True) / thresholds - 1)[:, 0]
            spared = strongest(margins, group.floor)
            shrunk = group_prox(own, thresholds)
            shrunk[spared] = own[spared]
            self._columns.put_outgoing_(group.name, weights, exclusive_prox(shrunk, step_size * mu / root))
            # Relative to the threshold: comparable from group to group.
            margins[spared] = margins[spared].clamp(min=torch.finfo().tiny)
            self._margins[group.name] = margins
        return loss

    def margins(self) -> PerChannel:
        return self._margins

    def gates(self) -> PerChannel:
        return {name: (margins > 0).float() for name, margins in self._margins.items()}


def exclusive_share(depth: int, layers: int) -> float:
    """mu_l = m + (1 - 2m) l / (L - 1), the share of exclusive sparsity in layer l = 0 .. L - 1 of the paper."""
    return FIRST if layers == 1 else FIRST + (1 - 2 * FIRST) * depth / (layers - 1)


def group_prox(weights: Tensor, threshold: Tensor | float) -> Tensor:
    """Per row v of `weights` (c, d): argmin over w of 1/2 ||w - v||^2 + threshold ||w||_2.

    The solution is max(1 - threshold / ||v||, 0) v: rows up to the threshold become exactly zero. A fresh tensor.
    """
    left: Tensor = (1 - threshold / weights.norm(dim=1, keepdim=True).clamp(min=torch.finfo().tiny)).clamp(min=0)
    return weights * left


def exclusive_prox(weights: Tensor, threshold: Tensor | float) -> Tensor:
    """Per row v of `weights` (c, d): argmin over w of 1/2 ||w - v||^2 + threshold / 2 ||w||_1^2.

    The solution is sign(v) max(|v| - threshold S, 0) with S its own L1 norm. (The paper thresholds by the L1 norm of v,
    a first-order approximation of S.) S solves sum(max(|v| - threshold S, 0)) = S, convex and falling, by Newton's
    method from S = 0: in each step fewer entries are active than before, else it has ended (with rounding the count may
    waver, and is not let up again). A row that is not zero does not become zero.
    """
    sizes = weights.abs()
    count = torch.full_like(sizes[:, :1], sizes.shape[1])
    norm = sizes.sum(1, keepdim=True) / (1 + threshold * count)
    while True:
        shrunk = (sizes - threshold * norm).clamp_(min=0)
        # Counting non-zeros takes twenty times as long as adding signs; sums up to 2^24 are exact.
        active = shrunk.sign().sum(1, keepdim=True)
        if not (active < count).any():
            return shrunk.copysign_(weights)
        count = torch.minimum(active, count)
        norm = norm + (shrunk.sum(1, keepdim=True) - norm) / (1 + threshold * count)

"""AutoPrune (Xiao, Wang and Rajasekaran, NeurIPS 2019) for neurons: auxiliary parameters decide what goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from edgeprune.core.progress import Progress
from edgeprune.models.inputs import only
from edgeprune.papers.methods.columns import Columns, PerChannel, across
from edgeprune.papers.methods.compressed import Compressed, Recipe
from edgeprune.papers.methods.control import compress, descend, strongest
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Structure
from edgeprune.training.batches import Batches

#: Auxiliary parameters at the start: all gates open.
START = 1.0
#: What a group's strongest auxiliary parameters keep where its floor is at stake: open.
OPEN = 1e-3


def autoprune(
    network: nn.Module,
    structure: Structure,
    train_set: Batches,
    validation: Batches,
    *,
    ncr: float,
    recipe: Recipe,
    progress: Progress,
) -> Compressed:
    """Prune the given, already trained network by auxiliary parameters, as Xiao et al. do, until its NCR is `ncr`.

    Each channel has an auxiliary parameter m and is multiplied, where it is read, by h(m): 1 where m > 0, else 0. Two
    problems are solved in turns, one step each: weights on a batch of training data, m held; then m on a batch of
    *validation* data, weights held, with the penalty strength * sum h(m). So the validation set takes part in pruning,
    as in the paper; only the test set says what the result is worth.

    The gradient of m is the paper's: with t = w h(m), dL/dm = h'(m) * sum over the channel's weights of dL/dt sgn(w).
    The sign stands for the weight, so that its size does not speed or slow the decision. For h' we take the derivative
    of softplus, sigmoid(m), one of the surrogates the paper proposes (linear, leaky ReLU, softplus): it is never zero,
    so a channel that went can come back, and it falls with m, so that noise seldom brings one back. Weights of a
    channel that went are not trained meanwhile and return as they were.

    m has an Adam of its own, whose rate lets it fall from its start to zero ten times while the penalty is on. The
    strongest `floor` channels of a group are held open. For strength, schedule, errors: `papers.methods.control`.
    """

    def make(network: nn.Module, columns: Columns, optimizer: torch.optim.Optimizer, ramp: int) -> _AutoPrune:
        return _AutoPrune(network, columns, optimizer, ramp, _endless(validation, recipe.batch_size, recipe.seed))

    return compress(make, network, structure, train_set, validation, ncr=ncr, recipe=recipe, progress=progress)


def _endless(batches: Batches, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.split(torch.randperm(len(batches), generator=generator), size):
            yield only(batches.inputs(index)), batches.y[index]


class _AutoPrune:
    title = "AutoPrune"

    def __init__(
        self,
        network: nn.Module,
        columns: Columns,
        optimizer: torch.optim.Optimizer,
        ramp: int,
        held_out: Iterator[tuple[Tensor, Tensor]],
    ) -> None:
        self.network = network
        self._columns = columns
        self._weights_step = optimizer
        self._held_out = held_out
        self.auxiliary = {g.name: torch.full((g.channels,), START, requires_grad=True) for g in columns.groups}
        self._auxiliary_step = torch.optim.Adam(self.auxiliary.values(), lr=10 * START / ramp)

    def step(self, x: Tensor, y: Tensor, strength: float) -> float:
        loss = self.train_weights(x, y)
        self.train_auxiliary(*next(self._held_out), strength)
        return loss

    def train_weights(self, x: Tensor, y: Tensor) -> float:
        """A step of the weights, auxiliary parameters held."""
        return descend(self._weights_step, self._loss(x, y, self._open()))

    def train_auxiliary(self, x: Tensor, y: Tensor, strength: float) -> None:
        """A step of the auxiliary parameters, weights (and batch statistics) held."""
        gates = {
            name: Indicator.apply(m)  # type: ignore[no-untyped-call]
            for name, m in self.auxiliary.items()
        }
        training = self.network.training
        self.network.eval()
        penalty = torch.stack([gate.sum() for gate in gates.values()]).sum()
        loss = self._loss(x, y, gates) + strength * penalty
        self._auxiliary_step.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=list(self.auxiliary.values()))
        self._auxiliary_step.step()
        self.network.train(training)
        with torch.no_grad():
            for group in self._columns.groups:
                m = self.auxiliary[group.name]
                best = strongest(m, group.floor)
                m[best] = m[best].clamp(min=OPEN)

    def _loss(self, x: Tensor, y: Tensor, gates: PerChannel) -> Tensor:
        gated = {}
        for layer in self._columns.layers:
            weight = weighted(self.network, layer).weight
            factors = self._columns.factors(self.network, layer, gates)
            gated[f"{layer}.weight"] = Gated.apply(weight, across(factors, weight))  # type: ignore[no-untyped-call]
        return F.cross_entropy(functional_call(self.network, gated, (x,)), y)

    def margins(self) -> PerChannel:
        return {name: m.detach() for name, m in self.auxiliary.items()}

    def gates(self) -> PerChannel:
        # What stays stays as it is, also where the controller brings it back.
        return {name: torch.ones_like(m) for name, m in self.auxiliary.items()}

    def _open(self) -> PerChannel:
        """h(m) of each channel."""
        return {name: (m.detach() > 0).float() for name, m in self.auxiliary.items()}


class Indicator(torch.autograd.Function):
    """h(m): 1 where m > 0, else 0; backwards it passes for softplus, whose derivative is sigmoid(m)."""

    @staticmethod
    def forward(ctx: Any, m: Tensor) -> Tensor:
        """h(m), the shape of m."""
        ctx.save_for_backward(m)
        return (m > 0).to(m.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """dL/dh sigmoid(m)."""
        (m,) = ctx.saved_tensors
        return grad * torch.sigmoid(m)


class Gated(torch.autograd.Function):
    """t = w h for weights (out, in, ...) and gates (1, in, 1 ...); gates get dL/dt sgn(w) in place of dL/dt w."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gates: Tensor) -> Tensor:
        """w h, the shape of `weight`."""
        ctx.save_for_backward(weight, gates)
        return weight * gates

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(dL/dt h, sum of dL/dt sgn(w) over all weights that read a channel)."""
        weight, gates = ctx.saved_tensors
        for_weight = grad * gates if ctx.needs_input_grad[0] else None
        for_gates = (grad * weight.sign()).sum_to_size(gates.shape) if ctx.needs_input_grad[1] else None
        return for_weight, for_gates

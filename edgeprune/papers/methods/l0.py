"""L0 regularisation (Louizos, Welling and Kingma, ICLR 2018): hard-concrete gates, trained with the expected count."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from edgeprune.core.progress import Progress
from edgeprune.papers.methods.columns import Columns, PerChannel, across
from edgeprune.papers.methods.compressed import Compressed, Recipe
from edgeprune.papers.methods.control import compress, strongest
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Structure
from edgeprune.training.batches import Batches

#: Beta, gamma and zeta of the paper: temperature, and the interval the concrete distribution is stretched to.
TEMPERATURE = 2 / 3
LOW, HIGH = -0.1, 1.1
#: Gates begin nearly open, since the network is trained: a dropout rate of 0.1 (the paper: 0.2 to 0.5).
START = math.log(0.9 / 0.1)
#: How far log alpha is from there to where a gate is shut.
REACH = START - math.log(-LOW / HIGH)
#: Log alpha that a group's strongest gates keep where its floor is at stake: half open.
HALF_OPEN = 0.0


def l0(
    network: nn.Module,
    structure: Structure,
    train_set: Batches,
    validation: Batches,
    *,
    ncr: float,
    recipe: Recipe,
    progress: Progress,
) -> Compressed:
    """Train the given, already trained network with the L0 penalty of Louizos et al. until its NCR is `ncr`.

    Each channel is multiplied, where it is read, by a gate z drawn once per batch from a hard-concrete distribution
    with parameter log alpha. The loss is that of the sampled network plus strength times the expected number of open
    gates. A channel stays if its gate at test time is above zero; at the NCR asked for, that gate is multiplied into
    the weights, and training goes on without gates. One that the controller brings back had its gate shut: the weights
    that read it begin anew at zero.

    Gates have an Adam of their own, whose rate lets them cross their range ten times while the penalty is on. The
    strongest `floor` gates of a group are held open. For strength, schedule, errors: `papers.methods.control`.
    """

    def make(network: nn.Module, columns: Columns, optimizer: torch.optim.Optimizer, ramp: int) -> _L0:
        return _L0(network, columns, optimizer, ramp, recipe.seed)

    return compress(make, network, structure, train_set, validation, ncr=ncr, recipe=recipe, progress=progress)


class _L0:
    title = "L0"

    def __init__(
        self, network: nn.Module, columns: Columns, optimizer: torch.optim.Optimizer, ramp: int, seed: int
    ) -> None:
        self._network = network
        self._columns = columns
        self._weights_step = optimizer
        self._generator = torch.Generator().manual_seed(seed)
        self.log_alpha = {g.name: torch.full((g.channels,), START, requires_grad=True) for g in columns.groups}
        self._gates_step = torch.optim.Adam(self.log_alpha.values(), lr=10 * REACH / ramp)

    def step(self, x: Tensor, y: Tensor, strength: float) -> float:
        gates = {}
        for name, log_alpha in self.log_alpha.items():
            gates[name] = sample(log_alpha, torch.rand(log_alpha.shape, generator=self._generator))
        gated = {}
        for layer in self._columns.layers:
            weight = weighted(self._network, layer).weight
            gated[f"{layer}.weight"] = weight * across(self._columns.factors(self._network, layer, gates), weight)
        loss = F.cross_entropy(functional_call(self._network, gated, (x,)), y)
        expected = torch.stack([open_probability(log_alpha).sum() for log_alpha in self.log_alpha.values()]).sum()
        for optimizer in (self._weights_step, self._gates_step):
            optimizer.zero_grad(set_to_none=True)
        (loss + strength * expected).backward()  # type: ignore[no-untyped-call]
        for optimizer in (self._weights_step, self._gates_step):
            optimizer.step()
        with torch.no_grad():
            for group in self._columns.groups:
                log_alpha = self.log_alpha[group.name]
                best = strongest(log_alpha, group.floor)
                log_alpha[best] = log_alpha[best].clamp(min=HALF_OPEN)
        return float(loss.detach())

    def margins(self) -> PerChannel:
        return {name: _stretched(log_alpha.detach()) for name, log_alpha in self.log_alpha.items()}

    def gates(self) -> PerChannel:
        return {name: final_gate(log_alpha.detach()) for name, log_alpha in self.log_alpha.items()}


def _stretched(log_alpha: Tensor) -> Tensor:
    return torch.sigmoid(log_alpha) * (HIGH - LOW) + LOW


def sample(log_alpha: Tensor, u: Tensor) -> Tensor:
    """Gates z in [0, 1] for uniform noise `u` in [0, 1), both (channels,): equations (10) and (11) of the paper."""
    u = u.clamp(1e-6, 1 - 1e-6)
    return _stretched((torch.logit(u) + log_alpha) / TEMPERATURE).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z > 0) of each gate, (channels,): equation (12) of the paper. Their sum is the expected count of open gates."""
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def final_gate(log_alpha: Tensor) -> Tensor:
    """The gate at test time, in [0, 1], (channels,): equation (13) of the paper."""
    return _stretched(log_alpha).clamp(0, 1)

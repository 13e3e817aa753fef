"""How strong a penalty must be: the controller that all three methods share. It is ours; the papers leave it open.

The papers hand the strength of their penalty to the user, and it alone decides how much is pruned. Here the user asks
for a neuron compression rate (NCR, [ACNN] 1) instead, and the strength follows: half of all steps are to bring the
number of neurons down to it along a straight line, and while more (fewer) are left than that line says, the strength
grows (shrinks), in proportion to the distance. NCR is looked at after every step. At the step that reaches it, the
strongest of the channels that went come back while NCR allows it (the penalty may have thrown out many at once), the
penalty ends for good, and the rest of the epochs trains what is left; what went stays gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Progress
from edgeprune.models.inputs import only
from edgeprune.papers.methods.columns import Columns, PerChannel
from edgeprune.papers.methods.compressed import Compressed, Epoch, Recipe
from edgeprune.pruning.structure import Structure, check_reachable, neurons_left
from edgeprune.training.batches import Batches
from edgeprune.training.fit import adamw, one_cycle, score
from edgeprune.training.regime import DECAY

#: Where the strength begins: weak for every method, so that the controller finds its way from below.
START = 1e-5
#: Growth of the strength's logarithm over the ramp, per share of all neurons that is left too many.
GAIN = 200.0


class Sparsifier(Protocol):
    """A method while its penalty is on."""

    #: What it is called in bars and messages.
    title: str

    def step(self, x: Tensor, y: Tensor, strength: float) -> float:
        """One step on inputs (n, ...) and labels (n,); the loss, without the penalty."""

    def margins(self) -> PerChannel:
        """How far each channel is from vanishing: it stays where that is above 0."""

    def gates(self) -> PerChannel:
        """By what each channel is multiplied where it is read once training is over, in [0, 1]."""


#: Makes a sparsifier: the network to train, its columns, its optimizer and the steps that the ramp has.
Make = Callable[[nn.Module, Columns, torch.optim.Optimizer, int], Sparsifier]


def compress(
    make: Make,
    network: nn.Module,
    structure: Structure,
    train_set: Batches,
    validation: Batches,
    *,
    ncr: float,
    recipe: Recipe,
    progress: Progress,
) -> Compressed:
    """Train a copy of a *trained* `network` under a penalty until its NCR is `ncr`, then train what is left.

    Every method starts from the network given (the papers start from random weights): rows of one table have one
    baseline. AdamW under a one-cycle schedule over all `epochs`, as `edgeprune.training.fit.train`; of the epochs that
    end at the NCR asked for, validation picks the one that is kept.

    Raises UsageError where `ncr` is no rate, floors forbid it, or the epochs do not suffice for it.
    """
    epochs, batch_size = recipe.epochs, recipe.batch_size
    _check(structure.groups, structure.neurons(network), ncr, epochs)
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = epochs * (len(train_set) // batch_size + (len(train_set) % batch_size > 1))
    control = _Controller(make, deepcopy(network), structure, ncr, recipe.learning_rate, steps)
    title = control.title
    best: tuple[float, nn.Module] | None = None
    history: list[Epoch] = []
    # Dropout draws from torch's own generator: it is seeded here and given back as it was.
    with progress.bar(title, epochs) as bar, torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        for epoch in range(1, epochs + 1):
            losses: list[float] = []
            control.network.train()
            for x, y in _shuffled(train_set, batch_size, generator):
                before = control.settled
                losses.append(control.step(x, y))
                if control.settled is not before:
                    progress.say(f"{title}: NCR {ncr:g} reached in epoch {epoch} of {epochs}")
            shown, reached = control.pruned()
            accuracy = score(shown, validation)
            history.append(Epoch(sum(losses) / max(1, len(losses)), accuracy, reached))
            if control.settled is not None and (best is None or accuracy > best[0]):
                best = (accuracy, deepcopy(control.network))
            bar.advance(1, f"validation {100 * accuracy:.2f} %, NCR {reached:.2f}")
    if control.settled is None or best is None:
        raise UsageError(
            f"{title} came to an NCR of {history[-1].ncr:.2f} in {epochs} epochs, not to {ncr:g}",
            "give it more: --train-epochs N, and a new --out",
        )
    return Compressed(best[1].eval(), control.settled, epochs, tuple(history))


class _Controller:
    """A network in training, step by step: under a penalty, until what stays is settled at the NCR asked for."""

    def __init__(
        self, make: Make, network: nn.Module, structure: Structure, ncr: float, learning_rate: float, steps: int
    ) -> None:
        """`network` itself is trained, for so many `steps` in all."""
        self.network = network
        #: The plan at the crossing; None before it.
        self.settled: PruningPlan | None = None
        self._groups, self._total, self._ncr = structure.groups, structure.neurons(network), ncr
        self._columns = Columns(structure)
        self._learning_rate, self._steps, self._ramp = learning_rate, steps, max(1, steps // 2)
        self._optimizer = adamw(network, learning_rate, DECAY)
        self._sparsifier = make(network, self._columns, self._optimizer, self._ramp)
        self._strength, self._step = START, 0
        self._masks: PerChannel = {}

    @property
    def title(self) -> str:
        """The method's, in bars and messages."""
        return self._sparsifier.title

    def step(self, x: Tensor, y: Tensor) -> float:
        """One step on inputs (n, ...) and labels (n,); the loss, without the penalty."""
        rate, beta = one_cycle(self._step / self._steps)
        for parameters in self._optimizer.param_groups:
            parameters["lr"], parameters["betas"] = rate * self._learning_rate, (beta, 0.999)
        self._step += 1
        if self.settled is None:
            loss = self._sparsifier.step(x, y, self._strength)
            self._adapt()
        else:
            loss = descend(self._optimizer, F.cross_entropy(self.network(x), y))
            self._columns.scale_(self.network, self._masks)
        return loss

    def _adapt(self) -> None:
        """Set the strength by how many neurons are left; where they are few enough, settle what stays."""
        total, margins = self._total, self._sparsifier.margins()
        left = neurons_left(self._groups, total, widths(self._groups, margins))
        pace = total - (total - total / self._ncr) * self._step / self._ramp
        self._strength *= math.exp(min(1.0, GAIN / self._ramp * (left - pace) / total))
        if total / left >= self._ncr:
            self.settled = settle(self._groups, margins, total, self._ncr)
            self._columns.scale_(self.network, self._sparsifier.gates())
            self._masks = stays(self._groups, self.settled)
            self._columns.scale_(self.network, self._masks)

    def pruned(self) -> tuple[nn.Module, float]:
        """The network without what has vanished so far, and its NCR."""
        plan, shown = self.settled, self.network
        if plan is None:
            margins = self._sparsifier.margins()
            plan, shown = kept(self._groups, margins, widths(self._groups, margins)), deepcopy(self.network)
            self._columns.scale_(shown, self._sparsifier.gates())
            self._columns.scale_(shown, stays(self._groups, plan))
        return shown, self._total / neurons_left(self._groups, self._total, plan.widths)


def _check(groups: Iterable[Group], total: int, ncr: float, epochs: int) -> None:
    if not 1.0 <= ncr < math.inf:
        raise UsageError(f"a neuron compression rate is at least 1, not {ncr:g}", "give the rate to reach, such as 3")
    if epochs < 1:
        raise UsageError(f"{epochs} epochs train nothing", "give at least one epoch")
    check_reachable(groups, total, ncr)


def _shuffled(batches: Batches, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels in random order; a last batch of one image is left out (batch norm cannot use it)."""
    for index in torch.split(torch.randperm(len(batches), generator=generator), size):
        if len(index) > 1:
            yield only(batches.inputs(index)), batches.y[index]


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """One gradient step; the loss as a number."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def strongest(margins: Tensor, count: int) -> Tensor:
    """Indices of the `count` channels with the largest of `margins` (channels,), largest first."""
    return torch.argsort(margins, descending=True, stable=True)[:count]


def widths(groups: Iterable[Group], margins: PerChannel) -> dict[str, int]:
    """How many channels of each group have not vanished, as an allowed width: never under the floor."""
    return {group.name: group.snap(int((margins[group.name] > 0).sum())) for group in groups}


def kept(groups: Iterable[Group], margins: PerChannel, widths: dict[str, int]) -> PruningPlan:
    """The plan that keeps the strongest channels of each group."""
    return PruningPlan({g.name: tuple(sorted(strongest(margins[g.name], widths[g.name]).tolist())) for g in groups})


def stays(groups: Iterable[Group], plan: PruningPlan) -> PerChannel:
    """1 for each channel that stays, 0 for each that goes."""
    masks = {group.name: torch.zeros(group.channels) for group in groups}
    for name, mask in masks.items():
        mask[list(plan.kept[name])] = 1.0
    return masks


def settle(groups: Iterable[Group], margins: PerChannel, total: int, ncr: float) -> PruningPlan:
    """The plan at a crossing: what did not vanish, and the strongest of what did as long as NCR stays at `ncr`."""
    wide = widths(groups, margins)
    ordered = {name: margin.sort(descending=True).values for name, margin in margins.items()}
    candidates = {group.name: group for group in groups if wide[group.name] < group.channels}
    while candidates:
        name = max(candidates, key=lambda name: float(ordered[name][wide[name]]))
        group = candidates[name]
        wider = wide | {name: min(group.channels, (wide[name] // group.multiple_of + 1) * group.multiple_of)}
        if total / neurons_left(groups, total, wider) < ncr:
            del candidates[name]
            continue
        wide = wider
        if wide[name] == group.channels:
            del candidates[name]
    return kept(groups, margins, wide)

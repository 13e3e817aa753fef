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
    title: str,
) -> Compressed:
    """Train a copy of a *trained* `network` under a penalty until its NCR is `ncr`, then train what is left.

    Every method starts from the network given (the papers start from random weights): rows of one table have one
    baseline. AdamW under a one-cycle schedule over all `epochs`, as `edgeprune.training.fit.train`; of the epochs that
    end at the NCR asked for, validation picks the one that is kept.

    Raises UsageError where `ncr` is no rate, floors forbid it, or the epochs do not suffice for it.
    """
    groups, epochs, batch_size = structure.groups, recipe.epochs, recipe.batch_size
    total = structure.neurons(network)
    _check(groups, total, ncr, epochs)
    network = deepcopy(network)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = adamw(network, recipe.learning_rate, DECAY)
    steps = epochs * (len(train_set) // batch_size + (len(train_set) % batch_size > 1))
    columns, ramp = Columns(structure), max(1, steps // 2)
    sparsifier = make(network, columns, optimizer, ramp)
    strength, step = START, 0
    settled: PruningPlan | None = None
    masks: PerChannel = {}
    best: tuple[float, nn.Module] | None = None
    history: list[Epoch] = []
    # Dropout draws from torch's own generator: it is seeded here and given back as it was.
    with progress.bar(title, epochs) as bar, torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        for epoch in range(1, epochs + 1):
            losses: list[float] = []
            network.train()
            for x, y in _shuffled(train_set, batch_size, generator):
                rate, beta = one_cycle(step / steps)
                for parameters in optimizer.param_groups:
                    parameters["lr"], parameters["betas"] = rate * recipe.learning_rate, (beta, 0.999)
                step += 1
                if settled is None:
                    losses.append(sparsifier.step(x, y, strength))
                    left = neurons_left(groups, total, widths(groups, sparsifier.margins()))
                    pace = total - (total - total / ncr) * step / ramp
                    strength *= math.exp(min(1.0, GAIN / ramp * (left - pace) / total))
                    if total / left >= ncr:
                        settled = settle(groups, sparsifier.margins(), total, ncr)
                        columns.scale_(network, sparsifier.gates())
                        masks = stays(groups, settled)
                        columns.scale_(network, masks)
                        progress.say(f"{title}: NCR {ncr:g} reached in epoch {epoch} of {epochs}")
                else:
                    losses.append(descend(optimizer, F.cross_entropy(network(x), y)))
                    columns.scale_(network, masks)
            plan = settled or kept(groups, sparsifier.margins(), widths(groups, sparsifier.margins()))
            shown = network
            if settled is None:
                shown = deepcopy(network)
                columns.scale_(shown, sparsifier.gates())
                columns.scale_(shown, stays(groups, plan))
            accuracy = score(shown, validation)
            reached = total / neurons_left(groups, total, plan.widths)
            history.append(Epoch(sum(losses) / max(1, len(losses)), accuracy, reached))
            if settled is not None and (best is None or accuracy > best[0]):
                best = (accuracy, deepcopy(network))
            bar.advance(1, f"validation {100 * accuracy:.2f} %, NCR {reached:.2f}")
    if settled is None or best is None:
        raise UsageError(
            f"{title} came to an NCR of {history[-1].ncr:.2f} in {epochs} epochs, not to {ncr:g}",
            "give it more: --train-epochs N, and a new --out",
        )
    return Compressed(best[1].eval(), settled, epochs, tuple(history))


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

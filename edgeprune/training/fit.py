"""Training a baseline, distilling a pruned network, scoring either."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.progress import Progress
from edgeprune.training.batches import Batches, augment

#: Softening of the teacher's answers (Hinton et al. 2015).
TEMPERATURE = 3.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained network at its best epoch by validation accuracy (share), and every epoch's accuracy."""

    network: nn.Module
    accuracy: float
    history: tuple[float, ...]


def predict(network: nn.Module, batches: Batches, limit: int | None = None) -> Tensor:
    """Logits (N, classes) of the first `limit` images, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        # About as many numbers at once whatever the size of an image.
        size = max(1, min(500, 2_000_000 // batches.x[0].numel()))
        return torch.cat([network(x) for x, _ in batches.ordered(size, limit)])


def score(network: nn.Module, batches: Batches, limit: int | None = None) -> float:
    """Share of the first `limit` images that are classified right."""
    logits = predict(network, batches, limit)
    return float((logits.argmax(1) == batches.y[: len(logits)]).double().mean())


def train(
    network: nn.Module,
    train_set: Batches,
    validation: Batches,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: Progress,
    title: str,
    teacher: nn.Module | None = None,
) -> Fit:
    """Train a copy with AdamW under a one-cycle schedule; validation picks the epoch.

    With a `teacher` the loss is distillation (Hinton et al. 2015): the teacher's softened answers and the labels, half
    and half. The start counts as epoch 0, so training never makes a network worse on validation.
    """
    network = deepcopy(network)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=5e-4)
    steps = max(1, epochs * sum(1 for _ in train_set.shuffled(batch_size, torch.Generator().manual_seed(0))))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1, pct_start=0.2)
    best, accuracy = deepcopy(network), score(network, validation)
    history: list[float] = []
    # Dropout draws from torch's own generator: it is seeded here and given back as it was.
    with progress.task(title, epochs) as task, torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(epochs):
            _epoch(network, train_set, batch_size, generator, optimizer, schedule.step, teacher)
            history.append(score(network, validation))
            if history[-1] > accuracy:
                best, accuracy = deepcopy(network), history[-1]
            task.advance(1, f"validation {100 * history[-1]:.2f} %")
    return Fit(best.eval(), accuracy, tuple(history))


def _epoch(
    network: nn.Module,
    train_set: Batches,
    batch_size: int,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    step: Callable[[], None],
    teacher: nn.Module | None,
) -> None:
    network.train()
    for index in train_set.shuffled(batch_size, generator):
        x, y = augment(train_set.inputs(index), generator), train_set.y[index]
        logits = network(x)
        loss = F.cross_entropy(logits, y)
        if teacher is not None:
            with torch.no_grad():
                target = F.softmax(teacher(x) / TEMPERATURE, 1)
            soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), target, reduction="batchmean") * TEMPERATURE**2
            loss = 0.5 * loss + 0.5 * soft
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step()

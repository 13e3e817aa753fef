"""Training a baseline, distilling a pruned network, scoring either."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.progress import Progress
from edgeprune.models.inputs import Inputs, ask, mapped, tensors_of
from edgeprune.tasks.metrics import Yardstick
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.frozen import train_mode, trainable
from edgeprune.training.place import PLAIN, Place

#: AdamW's weight decay, of weights only. A pruned network is tuned with more: Fashion-MNIST at a fifth of its neurons
#: loses 2.0 points instead of 2.25 so (docs/decisions/0009-inputs-last.md).
DECAY, FINETUNE_DECAY = 5e-4, 0.1

#: Which epoch's network is taken: the best on validation, or the last.
Taken = Literal["best", "last"]


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained network at the epoch that `train` takes, its quality on validation, and every epoch's (see `Metric`).

    `epochs` is how often the training set was gone through: a fraction where the time was over in the middle, and the
    last entry of `history` then stands for less than an epoch.
    """

    network: nn.Module
    accuracy: float
    history: tuple[float, ...]
    epochs: float


def predict(network: nn.Module, batches: Batches, limit: int | None = None, place: Place = PLAIN) -> Tensor:
    """Answers (N, ...) of the first `limit` images, in evaluation mode; the network is copied to another `place`.

    In float32 everywhere: a network is judged as it ships.
    """
    return _predict(network if place == PLAIN else place.copy(network), batches, limit, place)


def score(
    network: nn.Module,
    batches: Batches,
    limit: int | None = None,
    *,
    task: Task = CLASSIFICATION,
    place: Place = PLAIN,
) -> float:
    """The quality of the answers to the first `limit` images, by the task's metric."""
    return _judged(predict(network, batches, limit, place), batches, task)


def _predict(there: nn.Module, batches: Batches, limit: int | None, place: Place) -> Tensor:
    """`predict`, of a network that is in `place` already."""
    there.eval()
    with torch.no_grad():
        parts = [ask(there, place.inputs(x)) for x, _ in batches.ordered(min(500, batches.together), limit)]
        return torch.cat(parts).cpu()


def _judged(answers: Tensor, batches: Batches, task: Task) -> float:
    targets = batches.y[: len(answers)].numpy()
    return task.metric.quality(task.metric.value(answers.numpy(), targets), targets)


def one_cycle(elapsed: float) -> tuple[float, float]:
    """(learning rate as a share of its peak, beta_1 of Adam) when a share `elapsed` in [0, 1] of the training is done.

    The one-cycle schedule (Smith & Topin 2018) with cosine slopes: from 1/25 up to 1 at a fifth, down to almost 0;
    beta_1 goes from 0.95 to 0.85 and back.
    """
    start, peak = 1 / 25, 0.2
    rising = elapsed < peak
    slope = 0.5 - 0.5 * math.cos(math.pi * (elapsed / peak if rising else (1 - elapsed) / (1 - peak)))
    low = start if rising else start * 1e-4
    return low + (1 - low) * slope, 0.95 - 0.1 * slope


def adamw(network: nn.Module, learning_rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW for all that is not frozen; only weights decay, not biases and the scales and shifts of norms."""
    weights = [parameter for parameter in trainable(network) if parameter.ndim > 1]
    others = [parameter for parameter in trainable(network) if parameter.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        fused=True,
    )


def train(
    network: nn.Module,
    train_set: Batches,
    validation: Batches,
    *,
    epochs: float | None = None,
    minutes: float | None = None,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: Progress,
    title: str,
    distillation: Distillation | None = None,
    augmentation: Augmentation | None = None,
    weight_decay: float = DECAY,
    task: Task = CLASSIFICATION,
    clock: Callable[[], float] = time.monotonic,
    place: Place = PLAIN,
    begun: float = 0.0,
    taken: Taken = "best",
) -> Fit:
    """Train a copy with AdamW under a one-cycle schedule; validation picks the epoch by the `task`'s metric.

    It takes so many `epochs`, of which the last may be a part of one, or as many as fit into `minutes` by `clock`,
    validation included; the schedule follows the share of either that is spent. The result follows from the seed with
    `epochs`; with `minutes` also from the machine's speed. The start counts as epoch 0, so training never makes a
    network worse on validation. Where the last epoch is `taken` validation picks nothing: a network that has seen its
    images before would be picked where it has forgotten least of them. One that has `begun`, and was trained for so
    many epochs, sees images in another order than it did then.

    Frozen parameters, and the statistics of frozen norms, keep their values (see `frozen`); a network that is frozen
    as a whole comes back as it was, after no epoch. It trains in `place`, and comes back from there.

    Raises UsageError unless exactly one of `epochs` and `minutes` is given, ModelError at the first loss that is NaN or
    infinite.
    """
    if (epochs is None) == (minutes is None):
        raise UsageError("training takes either epochs or minutes", "give exactly one of them")
    network = place.copy(network)

    def validated() -> float:
        return _judged(_predict(network, validation, None, place), validation, task)

    began, yardstick = clock(), Yardstick.on(task.metric, validation.y.numpy())
    best, accuracy = deepcopy(network), validated()
    if not trainable(network):
        progress.say(f"{title}: every parameter is frozen (requires_grad=False), so there is nothing to train")
        return Fit(place.back(best).eval(), accuracy, (), 0.0)
    # As long as the last validation will take.
    reserve = clock() - began
    optimizer = adamw(network, learning_rate, weight_decay)
    source = _Source(train_set, batch_size, seed, distillation, augmentation, place, begun)
    total = (epochs or 0) * source.batches if minutes is None else 60 * minutes - reserve
    done = 0

    def elapsed() -> float:
        spent = done if minutes is None else clock() - began
        return spent / total if total > 0 else 1.0

    history: list[float] = []
    share = 0.0
    # Dropout draws from torch's own generator: it is seeded here and given back as it was.
    steps = math.ceil(epochs or 0) if minutes is None else 60 * minutes
    with progress.bar(title, steps) as bar, torch.random.fork_rng():
        torch.manual_seed(_seed_after(seed, begun))
        while elapsed() < 1:
            train_mode(network)
            for x, targets, softened in source.epoch():
                if (now := elapsed()) >= 1:
                    break
                rate, beta = one_cycle(now)
                for group in optimizer.param_groups:
                    group["lr"], group["betas"] = rate * learning_rate, (beta, 0.999)
                own = task.step(network, tensors_of(x), targets)
                if own is not None:
                    loss = own
                elif distillation is None or softened is None:
                    loss = task.loss(place.forward(network, x), targets)
                else:
                    loss = distillation.loss(place.forward(network, x), targets, softened)
                if not math.isfinite(found := loss.item()):
                    raise _diverged(title, found, 1 + done // source.batches, done, rate * learning_rate)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                done += 1
            history.append(validated())
            if taken == "last":
                best, accuracy = network, history[-1]
            elif history[-1] > accuracy:
                best, accuracy = deepcopy(network), history[-1]
            before, share = share, min(1.0, elapsed())
            passed = 1 if minutes is None else 60 * minutes * (share - before)
            bar.advance(passed, f"validation {yardstick.show(history[-1])}")
    return Fit(place.back(best).eval(), accuracy, tuple(history), done / max(1, source.batches))


def _seed_after(seed: int, epochs: float) -> int:
    return seed + round(1000 * epochs)


def _diverged(title: str, loss: float, epoch: int, step: int, rate: float) -> ModelError:
    causes = (
        "inputs that are scaled badly (try another --preprocessing), weights or data with extreme values, a network "
        "without normalisation"
    )
    where = f"in epoch {epoch} after {step:,} steps, at a learning rate of {rate:.1e}"
    return ModelError(f"{title} diverged: the loss is {loss} {where}", f"likely causes, in order: {causes}")


class _Source:
    """Batches of one epoch after the other; all that is not the network's own step is done for many at once."""

    def __init__(
        self,
        train_set: Batches,
        batch_size: int,
        seed: int,
        distillation: Distillation | None,
        augmentation: Augmentation | None,
        place: Place,
        begun: float,
    ) -> None:
        self._set = train_set
        self._place = place
        self._size = batch_size
        self._seed, self._epoch = seed, math.ceil(begun)
        self._generator = torch.Generator().manual_seed(_seed_after(seed, begun))
        self._distillation = distillation if distillation is not None and distillation.share > 0 else None
        self._augmentation = augmentation
        # Images that never change get the same answers every time.
        self._known: Tensor | None = None
        if self._distillation is not None and augmentation is None:
            self._known = self._distillation.soften(self._distillation.asked.known(train_set, place))
        #: Batches of an epoch; a last one of a single image is left out, since batch norm cannot use it.
        self.batches = len(train_set) // batch_size + (len(train_set) % batch_size > 1)

    def epoch(self) -> Iterator[tuple[Inputs, Tensor, Tensor | None]]:
        """Inputs, targets and the teacher's softened answers, in random order and in place."""
        rounds = self._distillation.rounds if self._distillation is not None else None
        if rounds is not None:
            self._generator.manual_seed(_seed_after(self._seed, self._epoch % rounds))
        self._epoch += 1
        # The generator's state tells this epoch's images from all others: their order, and how each is changed.
        key = (self._set, self._generator.get_state().numpy().tobytes(), self._size, self._augmentation, self._place)
        order = torch.randperm(len(self._set), generator=self._generator)
        together = self._size * max(1, self._set.together // self._size)
        for number, index in enumerate(torch.split(order, together)):
            x, targets = mapped(self._set.inputs(index), self._place.moved), self._place.moved(self._set.y[index])
            # Only what an image looks like is changed.
            if self._augmentation is not None and isinstance(x, Tensor):
                x = self._augmentation.apply(x, self._generator, self._size)
            x = self._place.inputs(x)
            softened = None
            if self._known is not None:
                softened = self._known[self._place.moved(index)]
            elif self._distillation is not None:
                softened = self._distillation.soften(self._distillation.asked.chunk(key, number, x, self._place))
            for start in range(0, len(index), self._size):
                part = slice(start, start + self._size)
                if len(targets[part]) > 1:
                    yield x[part], targets[part], None if softened is None else softened[part]

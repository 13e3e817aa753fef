"""Training a baseline, distilling a pruned network, scoring either."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.core.errors import ModelError
from edgeprune.core.progress import Progress
from edgeprune.models.inputs import Inputs, ask, one_after_the_other, tensors_of
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.frozen import train_mode, trainable
from edgeprune.training.loader import Loader, seed_after
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime


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
    return judged(predict(network, batches, limit, place), batches, task)


def _predict(there: nn.Module, batches: Batches, limit: int | None, place: Place) -> Tensor:
    """`predict`, of a network that is in `place` already."""
    there.eval()
    with torch.no_grad():
        parts = (ask(there, place.inputs(x)) for x, _ in batches.ordered(min(500, batches.together), limit))
        return one_after_the_other(parts, len(batches) if limit is None else min(limit, len(batches))).cpu()


def judged(answers: Tensor, batches: Batches, task: Task) -> float:
    """The quality of answers (N, ...) to the first N images, by the task's metric."""
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
    problem: Problem,
    regime: Regime,
    *,
    progress: Progress,
    title: str,
    distillation: Distillation | None = None,
    begun: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Fit:
    """Train a copy with AdamW under a one-cycle schedule; validation picks the epoch by the task's metric.

    It takes the regime's epochs, or as many as fit into its minutes by `clock`, validation included; the schedule
    follows the share of either that is spent. The result follows from the seed with epochs; with minutes also from the
    machine's speed. The start counts as epoch 0, so training never makes a network worse on validation. Where the last
    epoch is taken validation picks nothing: a network that has seen its images before would be picked where it has
    forgotten least of them. One that has `begun`, and was trained for so many epochs, sees images in another order than
    it did then.

    Frozen parameters, and the statistics of frozen norms, keep their values (see `frozen`); a network that is frozen
    as a whole comes back as it was, after no epoch. It trains in the regime's place, and comes back from there.

    Raises ModelError at the first loss that is NaN or infinite.
    """
    validation, place = problem.validation, regime.place
    network = place.copy(network)

    def validated() -> float:
        return judged(_predict(network, validation, None, place), validation, problem.task)

    began, yardstick = clock(), problem.yardstick
    best, accuracy = deepcopy(network), validated()
    if not trainable(network):
        progress.say(f"{title}: every parameter is frozen (requires_grad=False), so there is nothing to train")
        return Fit(place.back(best).eval(), accuracy, (), 0.0)
    # As long as the last validation will take.
    reserve = clock() - began
    descent = _Descent(network, problem.task, regime, distillation)
    loader = Loader(problem.train, regime, distillation, begun)
    course = _Course(regime, loader.batches, began, reserve, clock)
    history: list[float] = []
    # Dropout draws from torch's own generator: it is seeded here and given back as it was.
    with progress.bar(title, course.whole) as bar, torch.random.fork_rng():
        torch.manual_seed(seed_after(regime.seed, begun))
        while course.elapsed() < 1:
            train_mode(network)
            for batch in loader.epoch():
                if (now := course.elapsed()) >= 1:
                    break
                if not math.isfinite(loss := descent.step(batch, now)):
                    raise _diverged(title, loss, course, one_cycle(now)[0] * regime.learning_rate)
                course.steps += 1
            history.append(validated())
            if regime.taken == "last":
                best, accuracy = network, history[-1]
            elif history[-1] > accuracy:
                best, accuracy = deepcopy(network), history[-1]
            bar.advance(course.passed(), f"validation {yardstick.show(history[-1])}")
    return Fit(place.back(best).eval(), accuracy, tuple(history), course.epochs)


class _Course:
    """How far a training has come: by its steps where it takes epochs, else by the clock."""

    def __init__(self, regime: Regime, batches: int, began: float, reserve: float, clock: Callable[[], float]) -> None:
        self._minutes, self._batches = regime.minutes, batches
        self._began, self._clock = began, clock
        epochs = regime.epochs or 0
        self._total = epochs * batches if regime.minutes is None else 60 * regime.minutes - reserve
        #: Epochs, a part of one as a whole one, or seconds.
        self.whole = math.ceil(epochs) if regime.minutes is None else 60 * regime.minutes
        #: Those that were taken.
        self.steps = 0
        self._told = 0.0

    def elapsed(self) -> float:
        """The share that is spent; 1 and more: it is over."""
        spent = self.steps if self._minutes is None else self._clock() - self._began
        return spent / self._total if self._total > 0 else 1.0

    def passed(self) -> float:
        """What an epoch that ends now was of the `whole`."""
        before, self._told = self._told, min(1.0, self.elapsed())
        return 1 if self._minutes is None else 60 * self._minutes * (self._told - before)

    @property
    def epoch(self) -> int:
        """The one that it is in, from 1 on."""
        return 1 + self.steps // self._batches

    @property
    def epochs(self) -> float:
        """How often the training set was gone through."""
        return self.steps / max(1, self._batches)


class _Descent:
    """Steps of AdamW under the one-cycle schedule."""

    def __init__(self, network: nn.Module, task: Task, regime: Regime, distillation: Distillation | None) -> None:
        self._network, self._regime, self._distillation = network, regime, distillation
        self._objective = objective_of(task)
        self._optimizer = adamw(network, regime.learning_rate, regime.weight_decay)

    def step(self, batch: tuple[Inputs, Tensor, Tensor | None], elapsed: float) -> float:
        """The loss of a batch (see `Loader.epoch`), and a step down it unless it is NaN or infinite."""
        rate, beta = one_cycle(elapsed)
        for group in self._optimizer.param_groups:
            group["lr"], group["betas"] = rate * self._regime.learning_rate, (beta, 0.999)
        loss = self._loss(*batch)
        if math.isfinite(found := loss.item()):
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        return found

    def _loss(self, x: Inputs, targets: Tensor, softened: Tensor | None) -> Tensor:
        own = self._objective.step(self._network, tensors_of(x), targets)
        if own is not None:
            return own
        answers = self._regime.place.forward(self._network, x)
        if self._distillation is None or softened is None:
            return self._objective.loss(answers, targets)
        return self._distillation.loss(answers, targets, softened)


def _diverged(title: str, loss: float, course: _Course, rate: float) -> ModelError:
    causes = (
        "inputs that are scaled badly (try another --preprocessing), weights or data with extreme values, a network "
        "without normalisation"
    )
    where = f"in epoch {course.epoch} after {course.steps:,} steps, at a learning rate of {rate:.1e}"
    return ModelError(f"{title} diverged: the loss is {loss} {where}", f"likely causes, in order: {causes}")

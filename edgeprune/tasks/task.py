"""What a network is trained on: losses, what is learnt from another network's answers, how answers differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.errors import UsageError
from edgeprune.tasks.metrics import (
    MAE,
    MSE,
    R2,
    RMSE,
    Accuracy,
    Answers,
    BalancedAccuracy,
    MacroF1,
    MeanAveragePrecision,
    MeanIoU,
    Metric,
    PixelAccuracy,
    TopFive,
    classes_of,
)
from edgeprune.tasks.names import MetricName, TaskName

#: Two answers agree where they differ by less than this share of how far answers spread.
SAME = 0.01


@dataclass(frozen=True, slots=True)
class Task(ABC):
    """What a network is for. Its answers are tensors (N, ...), in the layouts of `edgeprune.tasks.metrics`."""

    metric: Metric
    name: ClassVar[TaskName]
    #: By which answers may be judged; the first is usual.
    metrics: ClassVar[tuple[type[Metric], ...]]
    #: Whether a target stays right when its image is moved, turned or mirrored.
    moves: ClassVar[bool] = False

    @property
    def key(self) -> tuple[str, ...]:
        """What training hangs on, beside the data."""
        return (self.name, self.metric.name)

    def step(self, network: nn.Module, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor | None:
        """The loss of a training step that is not `loss` of what the network answers; None where it is."""
        del network, inputs, target
        return None

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """What training makes small: a mean over the batch, or the sum of it."""

    @abstractmethod
    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """A teacher's answers as they are learnt from."""

    @abstractmethod
    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """How far an output is from a teacher's softened answers; gradients in proportion to those of `loss`."""

    @abstractmethod
    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """By how much answers differ from others: KL divergence where they are distributions, a mean over examples."""

    @abstractmethod
    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """A scalar whose gradient is that of the log-likelihood of targets drawn from the answers' own distribution.

        What Fisher weights are made of (Martens & Grosse 2015, section 3), summed over the batch.
        """

    @abstractmethod
    def agreement(self, ours: Answers, theirs: Answers) -> float:
        """The share of answers in which two runs of a network are the same."""

    def misfit(self, output: tuple[int, ...], target: tuple[int, ...], classes: int) -> str | None:
        """What outputs of this shape (N, ...) are not, for such targets (N, ...); None where they fit."""
        del classes
        given, wanted = (tuple(side for side in shape[1:] if side != 1) for shape in (output, target))
        if given == wanted:
            return None
        return f"{'x'.join(map(str, wanted)) or 'one'} number{'s' if wanted else ''} each"


@dataclass(frozen=True, slots=True)
class Classification(Task):
    """One of several classes: cross entropy on logits (N, classes)."""

    name: ClassVar[TaskName] = "classification"
    metrics: ClassVar[tuple[type[Metric], ...]] = (Accuracy, BalancedAccuracy, TopFive)
    moves: ClassVar[bool] = True

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(output, target, reduction=reduction)

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """Probabilities at a temperature (Hinton et al. 2015)."""
        return F.softmax(answers / temperature, 1)

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """T² CE(logits / T, softened). Against the KL divergence the teacher's entropy is left in, a constant."""
        return F.cross_entropy(output / temperature, softened) * temperature**2

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """KL divergence of the softmax."""
        ours, theirs = F.log_softmax(output, 1), F.log_softmax(reference, 1)
        return float(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Classes drawn from the softmax."""
        likelihood = F.log_softmax(output, 1)
        rows = likelihood.movedim(1, -1).flatten(0, -2) if likelihood.ndim > 2 else likelihood
        drawn = torch.multinomial(rows.detach().exp(), 1, generator=generator)
        return rows.gather(1, drawn).sum()

    def agreement(self, ours: Answers, theirs: Answers) -> float:
        """The same class."""
        return float(np.mean(classes_of(ours) == classes_of(theirs)))

    def misfit(self, output: tuple[int, ...], target: tuple[int, ...], classes: int) -> str | None:
        """Logits (N, classes)."""
        wanted = (target[0], classes, *target[1:])
        return None if output == wanted else f"logits {wanted}"


@dataclass(frozen=True, slots=True)
class Segmentation(Classification):
    """A class for every place: cross entropy on logits (N, classes, ...)."""

    name: ClassVar[TaskName] = "segmentation"
    metrics: ClassVar[tuple[type[Metric], ...]] = (MeanIoU, PixelAccuracy)
    moves: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class MultiLabel(Task):
    """Several yes or no answers: binary cross entropy on logits (N, labels)."""

    name: ClassVar[TaskName] = "multi-label"
    metrics: ClassVar[tuple[type[Metric], ...]] = (MeanAveragePrecision, MacroF1)
    moves: ClassVar[bool] = True

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Binary cross entropy; summed over the labels of an example where it is a sum."""
        return F.binary_cross_entropy_with_logits(
            output, target.reshape(output.shape).to(output.dtype), reduction=reduction
        )

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """Probabilities at a temperature."""
        return torch.sigmoid(answers / temperature)

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """T² BCE(logits / T, softened)."""
        return F.binary_cross_entropy_with_logits(output / temperature, softened) * temperature**2

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """KL divergence of the labels' Bernoulli distributions, summed over the labels."""
        p = torch.sigmoid(reference)
        lost = F.binary_cross_entropy_with_logits(output, p, reduction="none")
        own = F.binary_cross_entropy_with_logits(reference, p, reduction="none")
        return float((lost - own).reshape(len(output), -1).sum(1).mean())

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Labels drawn from the sigmoid."""
        labels = torch.bernoulli(torch.sigmoid(output.detach()).cpu(), generator=generator).to(output.device)
        return -F.binary_cross_entropy_with_logits(output, labels, reduction="sum")

    def agreement(self, ours: Answers, theirs: Answers) -> float:
        """The same answers to all labels."""
        return float(np.mean((ours > 0) == (theirs > 0)))


@dataclass(frozen=True, slots=True)
class Binary(MultiLabel):
    """One of two classes, told by one logit (N, 1) or (N,)."""

    name: ClassVar[TaskName] = "binary"
    metrics: ClassVar[tuple[type[Metric], ...]] = (Accuracy, BalancedAccuracy)

    def misfit(self, output: tuple[int, ...], target: tuple[int, ...], classes: int) -> str | None:
        """One logit (N, 1) or (N,)."""
        del target, classes
        return None if output[1:] in ((), (1,)) else f"one logit ({output[0]}, 1)"


@dataclass(frozen=True, slots=True)
class Regression(Task):
    """Numbers: squared errors, of targets in units of their own spread (`scale`)."""

    scale: float = 1.0
    name: ClassVar[TaskName] = "regression"
    metrics: ClassVar[tuple[type[Metric], ...]] = (MAE, RMSE, R2, MSE)

    def loss(self, output: Tensor, target: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Squared error over the square of the scale: the learning rate need not know the targets' unit."""
        off = (output - target.reshape(output.shape)) / self.scale
        return F.mse_loss(off, torch.zeros_like(off), reduction=reduction)

    def soften(self, answers: Tensor, temperature: float) -> Tensor:
        """Numbers are learnt as they are."""
        del temperature
        return answers

    def imitation(self, output: Tensor, softened: Tensor, temperature: float) -> Tensor:
        """Squared error from the teacher's numbers."""
        del temperature
        return self.loss(output, softened)

    def divergence(self, output: Tensor, reference: Tensor) -> float:
        """Squared error."""
        return float(self.loss(output, reference))

    def drawn(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers drawn around the answers, with the scale as standard deviation."""
        noise = torch.randn(output.shape, generator=generator).to(output.device)
        return (output / self.scale * noise).sum()

    def agreement(self, ours: Answers, theirs: Answers) -> float:
        """Within a hundredth of the standard deviation of all answers."""
        near = SAME * max(float(theirs.std()), 1e-12)
        return float(np.mean(np.abs(ours - theirs) <= near))


@dataclass(frozen=True, slots=True)
class Reconstruction(Regression):
    """The input itself, from what a narrower layer lets through."""

    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[tuple[type[Metric], ...]] = (MSE, RMSE, R2, MAE)


TASKS: dict[str, type[Task]] = {
    each.name: each for each in (Classification, Binary, MultiLabel, Regression, Segmentation, Reconstruction)
}
#: What is meant where nothing is said.
CLASSIFICATION = Classification(Accuracy())


def metric_of(task: type[Task], name: MetricName | None) -> Metric:
    """The metric `name` of a task; None: its usual one. Raises UsageError where it has no such metric."""
    known = {each.name: each for each in task.metrics}
    if name is None:
        return task.metrics[0]()
    if name not in known:
        raise UsageError(f"--metric {name} is none of {task.name}", f"give --metric {' or '.join(known)}")
    return known[name]()

"""What a network is for: how its answers are judged. What it is trained on is its objective, in `objectives`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
    """What a network is for. Its answers (N, ...) are in the layouts of `edgeprune.tasks.metrics`."""

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

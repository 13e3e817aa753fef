"""How answers are judged, whatever the task: a figure in its own terms, and a share that a search can maximise.

Arrays of answers and targets have one row per example:

| task | answers | targets |
|---|---|---|
| classification | logits (N, classes), or one (N, 1), (N,) for two | classes (N,) int64 |
| multi-label | logits (N, labels) | 0 or 1, (N, labels) |
| segmentation | logits (N, classes, ...) | classes (N, ...) int64 |
| regression, reconstruction | (N, ...) | (N, ...) float32 |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from edgeprune.core.errors import UsageError
from edgeprune.tasks.classes import WORTH, Classes, chance_level, majority, score_interval, score_of, telling_images
from edgeprune.tasks.names import MetricName

Answers = NDArray[np.float32]
Targets = NDArray[Any]
Merits = NDArray[np.float64]

#: Classes up to which the right one is among five answers too often to say anything.
FIVE = 5
#: Parts of the examples, each left out once, for the interval of a figure that has no formula.
PARTS = 20
#: What stands for an answer that is no number.
_NONSENSE = 1e18
#: The worst quality that is told from others: of an error twice that of the best constant answer.
WORST = -1.0


def classes_of(answers: Answers) -> Classes:
    """The class of each row: the largest of several logits (on axis 1), or whether the only one is above 0."""
    if answers.size == len(answers):
        return (answers.reshape(-1) > 0).astype(np.int64)
    if answers.shape[1] == 1:
        return (answers[:, 0] > 0).astype(np.int64)
    found: Classes = answers.argmax(1)
    return found


class Metric(ABC):
    """One way to judge answers.

    Its `value` is in its own terms; what is maximised is the `quality`: 1 for perfect answers, and for a metric of
    errors 0 for the best answer that is always the same (so of squared errors it is R²). A `share` is told in percent,
    and what is lost of it in points; of another metric in percent of itself.
    """

    name: ClassVar[MetricName]
    title: ClassVar[str]
    share: ClassVar[bool] = True
    #: What a figure that is no share is told in.
    told_in: ClassVar[str] = ""
    #: Whether each answer names a class that is right or wrong, and nothing else counts.
    of_classes: ClassVar[bool] = False

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @abstractmethod
    def value(self, answers: Answers, targets: Targets) -> float:
        """The figure, of all answers together."""

    @abstractmethod
    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """How good each answer is (N,), more is better: what two networks are compared by, example by example."""

    @abstractmethod
    def constant(self, targets: Targets) -> float:
        """What the best answer that is always the same gets."""

    def quality(self, value: float, targets: Targets) -> float:
        """What the search maximises, of a `value` on these targets."""
        return max(WORST, value if self.share else 1.0 - value / max(self.constant(targets), 1e-12))

    def chance(self, targets: Targets, answers: Answers | None = None) -> float:
        """The quality up to which answers are not told from guessing."""
        del answers
        least = self.quality(self.constant(targets), targets)
        return least + WORTH * (1 - least)

    def images(self, targets: Targets) -> float:
        """How many independent right or wrong answers a quality on these targets is worth (see `telling_images`)."""
        return float(len(targets))

    def interval(self, answers: Answers, targets: Targets) -> tuple[float, float]:
        """Where the true value lies with 95 % confidence, by the jackknife: each part of the examples is left out once.

        The standard error is sqrt((g - 1) / g sum (v_i - mean v)^2) for g parts (Tukey 1958).
        """
        parts = min(PARTS, len(targets))
        part = np.random.default_rng(0).permutation(len(targets)) % parts
        left = np.array([self.value(answers[part != each], targets[part != each]) for each in range(parts)])
        error = float(np.sqrt((parts - 1) / parts * ((left - left.mean()) ** 2).sum()))
        value = self.value(answers, targets)
        low, high = value - 1.96 * error, value + 1.96 * error
        return (low, min(high, 1.0)) if self.share else (max(low, 0.0), high)

    def show(self, value: float) -> str:
        """The figure for people."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.4g}"

    def lost(self, before: float, after: float) -> float:
        """What is lost from `before` to `after`: points of a share, else by how many percent the errors grew."""
        return 100 * (before - after) if self.share else 100 * (after - before) / max(abs(before), 1e-12)

    @property
    def unit(self) -> Literal["points", "%"]:
        """Of what is `lost`."""
        return "points" if self.share else "%"

    @property
    def usual_drop(self) -> float:
        """What may be lost where nobody said, in that unit: a network that is fast and wrong is of no use."""
        return 1.0 if self.share else 5.0

    def check_drop(self, relative: bool) -> None:
        """Raises UsageError where --max-drop is `relative` for a share, or in points for an error."""
        if relative == self.share:
            given, told, write = ("percent", "points", "1") if relative else ("points", "percent", "5%")
            raise UsageError(
                f"--max-drop is in {given}, and what is lost of {self.title} is told in {told}",
                f"write it as in --max-drop {write}",
            )


@dataclass(frozen=True, slots=True)
class Yardstick:
    """A metric on one set of targets: qualities back to its own terms, for people."""

    metric: Metric
    constant: float

    @classmethod
    def on(cls, metric: Metric, targets: Targets) -> Yardstick:
        """For these targets."""
        return cls(metric, metric.constant(targets))

    def value(self, quality: float) -> float:
        """What the metric says of answers of this quality."""
        return quality if self.metric.share else (1.0 - quality) * self.constant

    def show(self, quality: float) -> str:
        """The metric's figure, for people."""
        return self.metric.show(self.value(quality))


class _OfClasses(Metric):
    """What looks at the class alone."""

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """1 for the right class, else 0; a mean over all places where an example has many."""
        right = classes_of(answers) == targets
        merits: Merits = right.reshape(len(right), -1).mean(1).astype(np.float64)
        return merits


class Accuracy(_OfClasses):
    """The share of right answers."""

    name, title, of_classes = "accuracy", "accuracy", True

    def value(self, answers: Answers, targets: Targets) -> float:
        """See `score_of`."""
        return score_of("accuracy", targets, classes_of(answers))

    def constant(self, targets: Targets) -> float:
        """The most frequent class's share."""
        return majority(targets)[1]

    def chance(self, targets: Targets, answers: Answers | None = None) -> float:
        """See `chance_level`."""
        return chance_level("accuracy", targets, None if answers is None else classes_of(answers))

    def interval(self, answers: Answers, targets: Targets) -> tuple[float, float]:
        """Wilson's."""
        return score_interval("accuracy", targets, self.value(answers, targets))


class BalancedAccuracy(_OfClasses):
    """The mean over the classes of the share that is answered right of each."""

    name, title, of_classes = "balanced-accuracy", "balanced accuracy", True

    def value(self, answers: Answers, targets: Targets) -> float:
        """See `score_of`."""
        return score_of("balanced-accuracy", targets, classes_of(answers))

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """1 over how many examples there are of the class for the right class, else 0."""
        _, places, counts = np.unique(targets, return_inverse=True, return_counts=True)
        weights: Merits = 1 / counts[places]
        merits: Merits = weights * (classes_of(answers) == targets)
        return merits

    def constant(self, targets: Targets) -> float:
        """One of the classes there are."""
        return 1 / len(np.unique(targets))

    def chance(self, targets: Targets, answers: Answers | None = None) -> float:
        """See `chance_level`."""
        return chance_level("balanced-accuracy", targets, None if answers is None else classes_of(answers))

    def images(self, targets: Targets) -> float:
        """See `telling_images`."""
        return telling_images("balanced-accuracy", targets)

    def interval(self, answers: Answers, targets: Targets) -> tuple[float, float]:
        """Wilson's, of as many images as these are worth."""
        return score_interval("balanced-accuracy", targets, self.value(answers, targets))


class TopFive(Metric):
    """The share of answers whose five largest logits hold the right class."""

    name, title = "top-5", "top-5 accuracy"

    def value(self, answers: Answers, targets: Targets) -> float:
        """A mean over the examples."""
        return float(self.merits(answers, targets).mean())

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """1 where the right class is among the five, else 0."""
        count = min(FIVE, answers.shape[1])
        best = np.argpartition(-answers, count - 1, axis=1)[:, :count]
        merits: Merits = (best == targets[:, None]).any(1).astype(np.float64)
        return merits

    def constant(self, targets: Targets) -> float:
        """The five most frequent classes' share."""
        counts = np.sort(np.unique(targets, return_counts=True)[1])[::-1]
        return float(counts[:FIVE].sum() / len(targets))


class PixelAccuracy(_OfClasses):
    """The share of places that get the right class."""

    name, title = "pixel-accuracy", "pixel accuracy"

    def value(self, answers: Answers, targets: Targets) -> float:
        """A mean over all places."""
        return float((classes_of(answers) == targets).mean())

    def constant(self, targets: Targets) -> float:
        """The most frequent class's share."""
        return majority(targets.reshape(-1))[1]


class MeanIoU(_OfClasses):
    """Intersection over union, a mean over the classes that targets or answers have anywhere."""

    name, title = "miou", "mean IoU"

    def value(self, answers: Answers, targets: Targets) -> float:
        """Over all places of all examples together."""
        found = classes_of(answers)
        shares = []
        for each in np.union1d(np.unique(found), np.unique(targets)):
            ours, theirs = found == each, targets == each
            shares.append((ours & theirs).sum() / (ours | theirs).sum())
        return float(np.mean(shares))

    def constant(self, targets: Targets) -> float:
        """The most frequent class everywhere: its share, over the classes there are."""
        return majority(targets.reshape(-1))[1] / len(np.unique(targets))


class _OfLabels(Metric):
    """What looks at several yes or no answers."""

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """The share of an example's labels that are right."""
        right = (answers.reshape(targets.shape) > 0) == (targets > 0.5)
        merits: Merits = right.reshape(len(targets), -1).mean(1).astype(np.float64)
        return merits


class MeanAveragePrecision(_OfLabels):
    """Average precision of every label that some example has, and some has not; their mean."""

    name, title = "map", "mean average precision"

    def value(self, answers: Answers, targets: Targets) -> float:
        """By scikit-learn."""
        yes = (targets > 0.5).reshape(len(targets), -1)
        known = yes.any(0) & ~yes.all(0)
        scores = np.nan_to_num(answers, nan=-_NONSENSE).reshape(len(targets), -1)[:, known]
        return float(average_precision_score(yes[:, known], scores, average="macro")) if known.any() else 0.0

    def constant(self, targets: Targets) -> float:
        """How often the labels are given, a mean."""
        yes = (targets > 0.5).reshape(len(targets), -1)
        known = yes.any(0) & ~yes.all(0)
        return float(yes[:, known].mean()) if known.any() else 0.0


class MacroF1(_OfLabels):
    """F1 of every label, logits above 0 counting as yes; their mean."""

    name, title = "f1", "macro F1"

    def value(self, answers: Answers, targets: Targets) -> float:
        """By scikit-learn."""
        yes = (targets > 0.5).reshape(len(targets), -1)
        given = (answers > 0).reshape(yes.shape)
        return float(f1_score(yes, given, average="macro", zero_division=0.0))

    def constant(self, targets: Targets) -> float:
        """Always yes, of every label."""
        often = (targets > 0.5).reshape(len(targets), -1).mean(0)
        return float((2 * often / (1 + often)).mean())


class _OfNumbers(Metric):
    """What looks at how far answers are off."""

    share = False

    def _off(self, answers: Answers, targets: Targets) -> NDArray[np.float64]:
        given = np.nan_to_num(answers.astype(np.float64), nan=_NONSENSE, posinf=_NONSENSE, neginf=-_NONSENSE)
        return (given.reshape(targets.shape) - targets).reshape(len(targets), -1)

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """The squared error of each example, negative."""
        merits: Merits = -(self._off(answers, targets) ** 2).mean(1)
        return merits


class MAE(_OfNumbers):
    """The mean absolute error, in the targets' unit."""

    name, title, told_in = "mae", "mean absolute error", "in the targets' unit"

    def value(self, answers: Answers, targets: Targets) -> float:
        """A mean over all numbers."""
        return float(np.abs(self._off(answers, targets)).mean())

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """The absolute error of each example, negative."""
        merits: Merits = -np.abs(self._off(answers, targets)).mean(1)
        return merits

    def constant(self, targets: Targets) -> float:
        """Always the median."""
        flat = targets.reshape(len(targets), -1).astype(np.float64)
        return float(np.abs(flat - np.median(flat, 0)).mean())


class MSE(_OfNumbers):
    """The mean squared error, in the square of the targets' unit."""

    name: ClassVar[MetricName] = "mse"
    title = "mean squared error"
    told_in = "in the square of the targets' unit"

    def value(self, answers: Answers, targets: Targets) -> float:
        """A mean over all numbers."""
        return float((self._off(answers, targets) ** 2).mean())

    def constant(self, targets: Targets) -> float:
        """Always the mean."""
        return float(targets.reshape(len(targets), -1).astype(np.float64).var(0).mean())


class RMSE(MSE):
    """The root of the mean squared error, in the targets' unit."""

    name, title, told_in = "rmse", "root mean squared error", "in the targets' unit"

    def value(self, answers: Answers, targets: Targets) -> float:
        """Of the mean over all numbers."""
        return float(super().value(answers, targets) ** 0.5)

    def constant(self, targets: Targets) -> float:
        """Always the mean."""
        return float(super().constant(targets) ** 0.5)


class R2(MSE):
    """The share of the targets' variance that is explained, R²."""

    name, title, share, told_in = "r2", "R²", True, ""

    def value(self, answers: Answers, targets: Targets) -> float:
        """One minus the squared error over the variance."""
        return 1.0 - super().value(answers, targets) / max(super().constant(targets), 1e-12)

    def constant(self, targets: Targets) -> float:
        """Always the mean: nothing."""
        del targets
        return 0.0


class _Own(Metric):
    """The user's own: how it is shown. What it is only his task knows (`tasks.own`)."""

    def value(self, answers: Answers, targets: Targets) -> float:
        """Not known here."""
        raise NotImplementedError

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """Not known here."""
        raise NotImplementedError

    def constant(self, targets: Targets) -> float:
        """Not known here."""
        raise NotImplementedError


class Score(_Own):
    """What his task scores by, a share."""

    name, title = "score", "score"


class Error(_Own):
    """What his task scores by, where lower is better."""

    name, title, share = "error", "error", False


_METRICS: tuple[type[Metric], ...] = (
    Accuracy, BalancedAccuracy, TopFive, MeanAveragePrecision, MacroF1, MAE, RMSE, R2,
    MSE, MeanIoU, PixelAccuracy, Score, Error,
)  # fmt: skip


def metric_named(name: str) -> Metric:
    """The metric of this name, as `MetricName` lists them."""
    return next(each() for each in _METRICS if each.name == name)

"""Metrics of classification: each example has one class."""

from __future__ import annotations

import numpy as np

from edgeprune.tasks.classes import Classes, chance_level, majority, score_interval, score_of, telling_images
from edgeprune.tasks.metrics.metric import Answers, Merits, Metric, Targets

#: Classes up to which the right one is among five answers too often to say anything.
FIVE = 5


def classes_of(answers: Answers) -> Classes:
    """The class of each row: the largest of several logits (on axis 1), or whether the only one is above 0."""
    if answers.size == len(answers):
        return (answers.reshape(-1) > 0).astype(np.int64)
    if answers.shape[1] == 1:
        return (answers[:, 0] > 0).astype(np.int64)
    found: Classes = answers.argmax(1)
    return found


class OfClasses(Metric):
    """What looks at the class alone."""

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """1 for the right class, else 0; a mean over all places where an example has many."""
        right = classes_of(answers) == targets
        merits: Merits = right.reshape(len(right), -1).mean(1).astype(np.float64)
        return merits


class Accuracy(OfClasses):
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


class BalancedAccuracy(OfClasses):
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

"""Metrics of segmentation: each place of an example has a class."""

from __future__ import annotations

import numpy as np

from edgeprune.tasks.classes import majority
from edgeprune.tasks.metrics.metric import Answers, Targets
from edgeprune.tasks.metrics.of_classes import OfClasses, classes_of


class PixelAccuracy(OfClasses):
    """The share of places that get the right class."""

    name, title = "pixel-accuracy", "pixel accuracy"

    def value(self, answers: Answers, targets: Targets) -> float:
        """A mean over all places."""
        return float((classes_of(answers) == targets).mean())

    def constant(self, targets: Targets) -> float:
        """The most frequent class's share."""
        return majority(targets.reshape(-1))[1]


class MeanIoU(OfClasses):
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

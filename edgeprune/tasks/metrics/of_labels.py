"""Metrics of multi-label classification: each label is given or not."""

from __future__ import annotations

import numpy as np

from edgeprune.tasks.metrics.metric import NONSENSE, Answers, Merits, Metric, Targets
from edgeprune.tasks.metrics.ranks import average_precision


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
        """See `average_precision`."""
        yes = (targets > 0.5).reshape(len(targets), -1)
        known = yes.any(0) & ~yes.all(0)
        scores = np.nan_to_num(answers, nan=-NONSENSE).reshape(len(targets), -1)[:, known]
        each = [average_precision(*column) for column in zip(yes[:, known].T, scores.T, strict=True)]
        return float(np.mean(each)) if each else 0.0

    def constant(self, targets: Targets) -> float:
        """How often the labels are given, a mean."""
        yes = (targets > 0.5).reshape(len(targets), -1)
        known = yes.any(0) & ~yes.all(0)
        return float(yes[:, known].mean()) if known.any() else 0.0


class MacroF1(_OfLabels):
    """F1 of every label, logits above 0 counting as yes; their mean."""

    name, title = "f1", "macro F1"

    def value(self, answers: Answers, targets: Targets) -> float:
        """2 TP / (2 TP + FP + FN) of each label, 0 for one that is neither given nor had; their mean."""
        yes = (targets > 0.5).reshape(len(targets), -1)
        given = (answers > 0).reshape(yes.shape)
        return float((2 * (yes & given).sum(0) / np.maximum(yes.sum(0) + given.sum(0), 1)).mean())

    def constant(self, targets: Targets) -> float:
        """Always yes, of every label."""
        often = (targets > 0.5).reshape(len(targets), -1).mean(0)
        return float((2 * often / (1 + often)).mean())

"""Metrics of regression and reconstruction: each answer is numbers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprune.tasks.metrics.metric import NONSENSE, Answers, Merits, Metric, Targets
from edgeprune.tasks.names import MetricName


class _OfNumbers(Metric):
    """What looks at how far answers are off."""

    share = False

    def _off(self, answers: Answers, targets: Targets) -> NDArray[np.float64]:
        given = np.nan_to_num(answers.astype(np.float64), nan=NONSENSE, posinf=NONSENSE, neginf=-NONSENSE)
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

"""Whether anomalies stand out: they are reconstructed worse than what a network has learnt."""

from __future__ import annotations

from typing import ClassVar

from edgeprune.tasks.metrics.metric import Answers, Targets
from edgeprune.tasks.metrics.of_numbers import MSE
from edgeprune.tasks.metrics.ranks import area_under_roc
from edgeprune.tasks.names import MetricName


class AUC(MSE):
    """The area under the ROC curve: how often an anomaly's squared error is larger than that of a usual example.

    `answers` and `targets` (N, ...) are those of the anomalies. It judges nothing: validation has none.
    """

    name: ClassVar[MetricName] = "auc"
    title, share, told_in = "AUC of anomalies", True, ""

    def __init__(self, answers: Answers | None = None, targets: Targets | None = None) -> None:
        self._odd = None if answers is None or targets is None else -self.merits(answers, targets)

    def value(self, answers: Answers, targets: Targets) -> float:
        """Of usual examples beside these anomalies."""
        assert self._odd is not None
        return area_under_roc(-self.merits(answers, targets), self._odd)

    def constant(self, targets: Targets) -> float:
        """All alike."""
        del targets
        return 0.5

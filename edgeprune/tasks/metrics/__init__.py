"""How answers are judged, whatever the task: a figure in its own terms, and a share that a search can maximise.

Arrays of answers and targets have one row per example:

| task | answers | targets | its metrics |
|---|---|---|---|
| classification | logits (N, classes), or one (N, 1), (N,) for two | classes (N,) int64 | `of_classes` |
| multi-label | logits (N, labels) | 0 or 1, (N, labels) | `of_labels` |
| segmentation | logits (N, classes, ...) | classes (N, ...) int64 | `of_maps` |
| regression, reconstruction | (N, ...) | (N, ...) float32 | `of_numbers`, `of_anomalies` |
"""

from __future__ import annotations

from edgeprune.tasks.metrics.metric import PARTS, WORST, Answers, Merits, Metric, Targets, Yardstick
from edgeprune.tasks.metrics.of_anomalies import AUC
from edgeprune.tasks.metrics.of_classes import FIVE, Accuracy, BalancedAccuracy, TopFive, classes_of
from edgeprune.tasks.metrics.of_labels import MacroF1, MeanAveragePrecision
from edgeprune.tasks.metrics.of_maps import MeanIoU, PixelAccuracy
from edgeprune.tasks.metrics.of_numbers import MAE, MSE, R2, RMSE
from edgeprune.tasks.metrics.of_own_tasks import Error, Score

__all__ = [
    "AUC", "FIVE", "MAE", "MSE", "PARTS", "R2", "RMSE", "WORST", "Accuracy", "Answers", "BalancedAccuracy", "Error",
    "MacroF1", "MeanAveragePrecision", "MeanIoU", "Merits", "Metric", "PixelAccuracy", "Score", "Targets", "TopFive",
    "Yardstick", "classes_of", "metric_named",
]  # fmt: skip

_METRICS: tuple[type[Metric], ...] = (
    Accuracy, BalancedAccuracy, TopFive, MeanAveragePrecision, MacroF1, MAE, RMSE, R2,
    MSE, MeanIoU, PixelAccuracy, AUC, Score, Error,
)  # fmt: skip


def metric_named(name: str) -> Metric:
    """The metric of this name, as `MetricName` lists them."""
    return next(each() for each in _METRICS if each.name == name)

"""Tasks, metrics and kinds of targets by name: for options and data, without torch."""

from __future__ import annotations

from typing import Literal, get_args

TaskName = Literal["classification", "binary", "multi-label", "regression", "segmentation", "reconstruction"]
MetricName = Literal[
    "accuracy", "balanced-accuracy", "top-5", "map", "f1", "mae", "rmse", "r2", "mse", "miou", "pixel-accuracy"
]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)

#: What targets are: one class, a class for every place, yes or no for several labels, or numbers.
TargetKind = Literal["classes", "map", "labels", "numbers"]
#: Of which kind a task's targets are.
TARGETS: dict[TaskName, TargetKind] = {
    "classification": "classes",
    "binary": "classes",
    "segmentation": "map",
    "multi-label": "labels",
    "regression": "numbers",
    "reconstruction": "numbers",
}
#: Each kind in words.
WORDS: dict[TargetKind, str] = {
    "classes": "classes, one integer for each example",
    "map": "a class for every place",
    "labels": "0 or 1 for each of several labels",
    "numbers": "numbers",
}

"""Tasks, metrics and kinds of targets by name: for options and data, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.userfile import is_user_function

#: "own" is the user's, and has no other name.
TaskName = Literal["classification", "binary", "multi-label", "regression", "segmentation", "reconstruction", "own"]
#: "score" and "error" are those of the user's own task, where higher and where lower is better; "auc" is told beside
#: the error of a reconstruction where the data mark anomalies.
MetricName = Literal[
    "accuracy",
    "balanced-accuracy",
    "top-5",
    "map",
    "f1",
    "mae",
    "rmse",
    "r2",
    "mse",
    "miou",
    "pixel-accuracy",
    "auc",
    "score",
    "error",
]
OWN: Literal["own"] = "own"
#: Those that can be asked for by name.
TASK_NAMES: tuple[TaskName, ...] = tuple(name for name in get_args(TaskName) if name != OWN)

#: What targets are: one class, a class for every place, yes or no for several labels, numbers, or what the user's own
#: task makes of them.
TargetKind = Literal["classes", "map", "labels", "numbers", "own"]
#: Of which kind a task's targets are.
TARGETS: dict[TaskName, TargetKind] = {
    "classification": "classes",
    "binary": "classes",
    "segmentation": "map",
    "multi-label": "labels",
    "regression": "numbers",
    "reconstruction": "numbers",
    "own": "own",
}
#: Each kind in words.
WORDS: dict[TargetKind, str] = {
    "classes": "classes, one integer for each example",
    "map": "a class for every place",
    "labels": "0 or 1 for each of several labels",
    "numbers": "numbers",
    "own": "targets of its own task",
}


@dataclass(frozen=True, slots=True)
class OwnTargets:
    """That targets are those of a task of the user's own, FILE.py:FUNCTION; `collate` makes tensors of what he has."""

    spec: str
    collate: Callable[[Sequence[Any]], Any] | None = None


def own_task(task: str | None) -> str:
    """The FILE.py:FUNCTION that `--task` names; "" where it names none."""
    return task if task is not None and is_user_function(task) else ""


def named_task(task: str | None) -> TaskName | None:
    """The task that `--task` names; None where it names none, or a FILE.py:FUNCTION."""
    return next((name for name in TASK_NAMES if name == task), None)


def check_task(task: str | None, metric: MetricName | None) -> None:
    """Raises UsageError where `--task` is neither, or `--metric` cannot be that task's."""
    if task is not None and not own_task(task) and named_task(task) is None:
        raise UsageError(
            f"--task: there is no task '{task:.60}'", did_you_mean(task, TASK_NAMES) + " (or your own FILE.py:FUNCTION)"
        )
    if own_task(task) and metric is not None:
        raise UsageError(f"--metric {metric} means nothing to a task of your own", "leave it out")
    if metric in ("score", "error"):
        raise UsageError(f"--metric {metric} is that of a task of your own", "give --task FILE.py:FUNCTION")

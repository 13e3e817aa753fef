"""Everything that is told of a network's answers to a set of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.tasks.classes import recall_of
from edgeprune.tasks.metrics import Answers, Targets, TopFive, classes_of
from edgeprune.tasks.task import Task

#: Classes up to which the right one is among five answers too often to say anything.
_FIVE = 5


@dataclass(frozen=True, slots=True)
class Judged:
    """What every metric of the task says (`values`, by its name), and where the task's own truly lies (95 %).

    `recall` is of each class, None for one that no example is of; empty where answers are no classes.
    """

    values: Mapping[str, float]
    interval: tuple[float, float]
    recall: tuple[float | None, ...] = ()


def judge(task: Task, answers: Answers, targets: Targets, classes: int) -> Judged:
    """Everything at once, of `answers` (N, ...) and `targets`; there are so many `classes`."""
    metrics = {task.metric.name: task.metric, **{each.name: each() for each in task.metrics}}
    if classes <= _FIVE:
        metrics.pop(TopFive.name, None)
    values = {name: each.value(answers, targets) for name, each in metrics.items()}
    recall = recall_of(targets, classes_of(answers), classes) if task.name in ("classification", "binary") else ()
    return Judged(values, task.metric.interval(answers, targets), recall)

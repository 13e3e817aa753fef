"""Everything that is told of a network's answers to a set of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.tasks.classes import recall_of
from edgeprune.tasks.metrics import AUC, FIVE, Answers, Targets, TopFive, classes_of
from edgeprune.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Judged:
    """What every metric of the task says (`values`, by its name), and where the task's own truly lies (95 %).

    `recall` is of each class, None for one that no example is of; empty where answers are no classes.
    """

    values: Mapping[str, float]
    interval: tuple[float, float]
    recall: tuple[float | None, ...] = ()


def judge(
    task: Task,
    answers: Answers,
    targets: Targets,
    classes: int,
    *,
    interval: bool = True,
    anomalous: tuple[Answers, Targets] | None = None,
) -> Judged:
    """Everything at once, of `answers` (N, ...) and `targets`; there are so many `classes`.

    Without `interval` it is the value itself: that costs as much as many values. `anomalous` are those of examples that
    are to stand out; nothing else is judged by them.
    """
    metrics = [each() for each in task.metrics if each is not TopFive or classes > FIVE]
    values: dict[str, float] = {each.name: each.value(answers, targets) for each in metrics}
    if anomalous is not None:
        values[AUC.name] = AUC(*anomalous).value(answers, targets)
    own = values.setdefault(task.metric.name, task.metric.value(answers, targets))
    between = task.metric.interval(answers, targets) if interval else (own, own)
    recall = recall_of(targets, classes_of(answers), classes) if task.name in ("classification", "binary") else ()
    return Judged(values, between, recall)

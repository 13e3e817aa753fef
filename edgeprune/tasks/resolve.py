"""Which task it is: as asked, else worked out from the targets and from what the network answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.mapped import parts
from edgeprune.tasks.metrics import FIVE, Targets, TopFive
from edgeprune.tasks.names import TARGETS, WORDS, MetricName, TargetKind, TaskName
from edgeprune.tasks.task import TASKS, Regression, Task, metric_of


def settle_task(
    asked: TaskName | None,
    metric: MetricName | None,
    kind: TargetKind,
    targets: Targets,
    classes: Sequence[str],
    output: tuple[int, ...],
    *,
    same: bool,
) -> Task:
    """The task of a network that answers (N, ...) like `output` to examples whose training `targets` are of a `kind`.

    `same`: the targets are the inputs. Raises UsageError where `asked` or `metric` cannot be of such targets,
    ModelError where the network's answers do not fit.
    """
    if asked is not None and TARGETS[asked] != kind:
        fitting = [name for name, its in TARGETS.items() if its == kind]
        raise UsageError(
            f"--task {asked} wants {WORDS[TARGETS[asked]]}, and the targets are {WORDS[kind]}",
            f"give --task {' or '.join(fitting)}, or leave it out",
        )
    task = TASKS[asked or _usual(kind, classes, output, same=same)]
    judged = metric_of(task, metric)
    if isinstance(judged, TopFive) and len(classes) <= FIVE:
        raise UsageError(f"--metric top-5 says nothing of {len(classes)} classes", "leave it out")
    if issubclass(task, Regression):
        return task(judged, scale=_spread(targets))
    return task(judged)


def check_fits(
    task: Task, model: str, output: tuple[int, ...], targets: Targets, classes: Sequence[str], what: str
) -> None:
    """Raises ModelError unless answers of the shape `output` (N, ...) fit the targets, in words `what`."""
    wanted = (output[0], *targets.shape[1:])
    if (why := task.misfit(output, wanted, len(classes))) is not None:
        hint = f"the data has {what}; the task is taken to be {task.name}, and --task gives another"
        raise ModelError(f"model {model} gives {output} for two inputs, not {why}", hint)


def is_same(x: NDArray[Any], y: Targets) -> bool:
    """Whether targets (N, ...) are the inputs."""
    if x.dtype.names is not None or x.size != y.size:
        return False
    return all(np.array_equal(x[part].ravel(), y[part].ravel()) for part in parts(x))


def _usual(kind: TargetKind, classes: Sequence[str], output: tuple[int, ...], *, same: bool) -> TaskName:
    if kind == "numbers":
        return "reconstruction" if same else "regression"
    if kind == "classes" and len(classes) == 2 and output[1:] in ((), (1,)):
        return "binary"
    return {"classes": "classification", "map": "segmentation", "labels": "multi-label"}[kind]  # type: ignore[return-value]


def _spread(targets: Targets) -> float:
    """The targets' standard deviation, a root mean square over what is predicted of an example."""
    spread = float(np.sqrt(targets.reshape(len(targets), -1).astype(np.float64).var(0).mean()))
    return spread if spread > 0 else 1.0

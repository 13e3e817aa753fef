"""How many examples a model file classifies right on a device: `edgeprune validate`.

Files of others say little of what they take and give. What is decided here is told: `Accuracy.conventions`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.distributions import binomial_tail, wilson_interval
from edgeprune.core.errors import ModelError
from edgeprune.core.inputs import plain_shape
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.session import Session
from edgeprune.core.units import format_percent
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import in_own_order
from edgeprune.profilers.answers import Reading, choose, other_order
from edgeprune.profilers.foreign import SIGNIFICANT, ForeignFile
from edgeprune.profilers.ports import Output
from edgeprune.profilers.records import Accuracy, Tried, ValidatedData, ValidatedOn
from edgeprune.profilers.ways import Asked, Judge, Rows
from edgeprune.tasks.classes import score_interval, score_of
from edgeprune.tasks.metrics import FIVE, TopFive
from edgeprune.tasks.names import MetricName, TaskName


class _Classes(Judge):
    """Each answer is a class, which is right or wrong."""

    reading: Reading

    def __init__(self, dataset: Dataset, asked: Asked, task: TaskName | None, logit: bool) -> None:
        self._classes, self._asked, self._task, self._logit = dataset.classes, asked, task, logit
        self.word = word_for(dataset)

    def fit(self, outputs: tuple[Output, ...], batch: int, file: str) -> tuple[str, ...]:
        """The output that tells the class. Raises ModelError where it is not what the task wants."""
        asked = self._asked
        reading = choose(outputs, batch, len(self._classes), file, asked.output, asked.label_offset)
        self.reading = replace(reading, logit=self._logit)
        if (self._task, reading.kind) in (("binary", "scores"), ("classification", "one")):
            wanted = {"binary": "one value", "classification": f"{len(self._classes)} values"}[str(self._task)]
            raise ModelError(
                f"{file} gives {reading}, and --task {self._task} wants {wanted} an example", "leave out --task"
            )
        return (self.reading.output,)

    def told(self) -> str:
        """Which output, and how."""
        return f"the class is read from {self.reading}"

    def read(self, rows: Rows) -> tuple[NDArray[Any], str]:
        """Classes (N,)."""
        return self.reading.classes(rows[0], self._classes)

    def figure(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        """The share of right answers."""
        return float(np.mean(answers == targets))

    def quality(self, figure: float, targets: NDArray[Any]) -> float:
        """That itself."""
        del targets
        return figure

    def marks(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        """Whether each is right."""
        right: NDArray[Any] = answers == targets
        return right

    def guesses(self, answers: NDArray[Any], targets: NDArray[Any]) -> bool:
        """Whether the most frequent class alone gets as much."""
        count = len(targets)
        right, chance = int(np.sum(answers == targets)), float(np.bincount(targets).max() / count)
        return binomial_tail(right, count, chance) > SIGNIFICANT

    def show(self, figure: float) -> str:
        """A percentage."""
        return format_percent(figure)


def word_for(dataset: Dataset) -> str:
    """What its examples are called: images, unless they have several inputs, or integers."""
    return "images" if plain_shape(dataset.input_shape) else "examples"


def accuracy_on_device(
    session: Session,
    settings: MeasureSettings,
    file: Path,
    dataset: Dataset,
    asked: Asked,
    progress: Progress,
    images: int | None = None,
    *,
    task: TaskName | None = None,
    metric: MetricName = "accuracy",
    logit: bool = False,
) -> Accuracy:
    """Run the test images (the first `images`) through the file on the device and compare its answers with the labels.

    What the file does not tell and `asked` leaves open is tried on training images; test images choose nothing. `task`
    is what the user takes it for; `logit`: one value for two classes is one, as the file says of itself.

    Raises ModelError where the file takes or gives something else, DeviceError where it does not run there.
    """
    judge = _Classes(dataset, asked, task, logit)
    model = ForeignFile(session, settings, file, dataset, asked, judge, progress)
    chosen, trials = model.choose()
    # A stream is nothing without its order.
    test = in_own_order(dataset.test) if asked.stream else dataset.test
    x, labels = test.x[:images], test.y[:images]
    start = time.monotonic()
    rows, remarks = model.answers(x, chosen)
    seconds = time.monotonic() - start
    found, remark = judge.read(rows)
    correct = int(np.sum(found == labels))
    low, high = wilson_interval(correct, len(labels))
    scores, between = _scores(judge.reading, dataset.classes, rows, found, labels, (low, high), metric, file.name)
    tried = tuple(Tried(way.layout, way.preprocessing, round(way.figure * way.images), way.images) for way in trials)
    spec = session.spec
    return Accuracy(
        file=str(file),
        device=ValidatedOn(spec.name, spec.emulated),
        data=ValidatedData(dataset.name, dataset.fingerprint),
        task="binary" if judge.reading.kind == "one" else "classification",
        metric=metric,
        scores=scores,
        interval=between,
        correct=correct,
        images=len(labels),
        low=low,
        high=high,
        seconds_per_image=seconds / len(labels),
        layout=chosen.layout,
        preprocessing=chosen.name,
        input=", ".join(port.name for port in model.ports),
        output=judge.reading.output,
        batch=chosen.batch,
        conventions=(*model.told(chosen), *remarks, *([remark] if remark else [])),
        tried=tried,
        advice=_advice(found, labels, dataset, low, tried),
        accuracy=correct / len(labels),
    )


def _scores(
    reading: Reading,
    classes: tuple[str, ...],
    rows: Rows,
    found: NDArray[np.int64],
    labels: NDArray[np.int64],
    right: tuple[float, float],
    metric: MetricName,
    file: str,
) -> tuple[dict[str, float], tuple[float, float]]:
    """What every metric says, and the 95 % interval of `metric`'s; `right`: that of the share of right answers."""
    scores = {
        "accuracy": int(np.sum(found == labels)) / len(labels),
        "balanced-accuracy": score_of("balanced-accuracy", labels, found),
    }
    columns = reading.columns(classes) if len(classes) > FIVE else None
    if columns is not None:
        scores["top-5"] = TopFive().value(rows[0], columns[labels])
    if metric not in scores:
        raise ModelError(f"{file} gives no value for each class, which {metric} wants", "leave out --metric")
    if metric == "balanced-accuracy":
        return scores, score_interval("balanced-accuracy", labels, scores[metric])
    if metric == "top-5" and columns is not None:
        return scores, TopFive().interval(rows[0], columns[labels])
    return scores, right


def _advice(
    found: NDArray[np.int64], labels: NDArray[np.int64], dataset: Dataset, low: float, tried: Sequence[Tried]
) -> tuple[str, ...]:
    """Of an outcome that is no better than answering the most frequent class: likely causes in order, what to type."""
    classes, word = len(dataset.classes), word_for(dataset)
    chance = float(np.bincount(labels, minlength=classes).max() / len(labels))
    if low > max(chance, 1 / classes):
        return ()
    lines = [f"no better than chance: the most frequent class alone is {100 * chance:.2f} % of the {word}"]
    if len(np.unique(found)) == 1:
        lines.append(
            f"every {word.removesuffix('s')} gets the same class, as with values on a wrong scale, or a file that was "
            "never trained"
        )
    share, order = other_order(found, labels, classes)
    # Some order always fits a little; half of the images and more do not come by chance.
    if len(labels) >= 10 * classes and share > max(0.5, chance + 0.2):
        shown = ", ".join(map(str, order[:20])) + (", ..." if classes > 20 else "")
        lines.append(
            f"with the classes in another order {100 * share:.2f} % would be right: the file's classes 0, 1, ... seem "
            f"to be the data's {shown}; name the data's classes in the file's order"
        )
    scaling = "--preprocessing MEAN,STD" if tried else "--preprocessing auto, none, unit or MEAN,STD"
    causes = [f"another scaling ({scaling})"]
    if plain_shape(dataset.input_shape)[:1] == (3,):
        causes.append("another order of colours (BGR instead of RGB)")
    causes.append("another order of the classes")
    lines.append(f"likely causes, in order: {'; '.join(causes)}")
    return tuple(lines)

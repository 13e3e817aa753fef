"""Answers of a model file on a device that are no single class, as their task judges them: `edgeprune validate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.joined import Joined
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.session import Session
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import in_own_order
from edgeprune.profilers.answers import are_probabilities
from edgeprune.profilers.foreign import ForeignFile
from edgeprune.profilers.ports import Output, written
from edgeprune.profilers.records import Scores, TriedScore, ValidatedData, ValidatedOn
from edgeprune.profilers.ways import Asked, Judge, Rows
from edgeprune.tasks.judging import judge
from edgeprune.tasks.metrics import Metric
from edgeprune.tasks.task import Task

#: What the one output of a file of ours is called, where its network gives a tensor and nothing else.
_ALONE = "logits"
#: What stands before the number of one that came in a tuple.
_PLACE = "output"
#: The task, for outputs that lie side by side in that way (None: one output), of which one answer has a shape.
Make = Callable[[Joined | None, tuple[int, ...]], Task]


@dataclass(frozen=True, slots=True)
class JudgedBy:
    """What judges the answers."""

    make: Make
    #: Whether it is the user's own task, which is given all outputs.
    own: bool = False
    #: Whether the file is one of ours: then its answers are what its task wants, whatever their values.
    ours: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """One output, and how its rows (N, values) become answers (N, ...)."""

    output: Output
    #: Of one answer as the file gives it.
    shape: tuple[int, ...]
    #: Whether channels come last, and are to be first.
    turned: bool = False
    #: Whether it holds classes of places, not a logit for each class.
    labels: bool = False

    def __str__(self) -> str:
        """In words, for the product's output."""
        how = ", channels last" if self.turned else ", the class of each place" if self.labels else ""
        return f"{self.output.name} {written(self.shape)}{how}"


class _Answers(Judge):
    """Answers as a task judges them."""

    word = "examples"
    task: Task

    def __init__(self, dataset: Dataset, asked: Asked, wanted: JudgedBy) -> None:
        self._dataset, self._asked, self._wanted = dataset, asked, wanted
        self.found: tuple[_Found, ...] = ()

    def fit(self, outputs: tuple[Output, ...], batch: int, file: str) -> tuple[str, ...]:
        """The output that fits the targets; all outputs where the task is the user's own."""
        name = self._asked.output
        if name and name not in {each.name for each in outputs}:
            raise ModelError(f"{file} has no output '{name}'", f"its outputs: {', '.join(map(str, outputs))}")
        asked = [each for each in outputs if each.name == name or not name]
        known = [each for each in asked if each.kind in ("f", "i") and each.width(batch)]
        if not known:
            raise ModelError(f"{file} gives no numbers: {', '.join(map(str, asked))}", "")
        each_found = [_Found(each, _of_one(each, batch)) for each in known]
        if self._wanted.own:
            self.found = tuple(sorted(each_found, key=_number))
            self.task = self._wanted.make(self._layout(), self._width())
        else:
            self.found = (self._fitting(each_found, file),)
        return tuple(each.output.name for each in self.found)

    def _layout(self) -> Joined | None:
        """How several outputs lie side by side, as the network gave them: by name, or by number."""
        names = [each.output.name for each in self.found]
        if len(names) == 1 and (names[0] == _ALONE or not self._wanted.ours):
            return None
        named = any(_number(each) != place for place, each in enumerate(self.found))
        integers = tuple(each.output.kind == "i" for each in self.found)
        return Joined(tuple(names), tuple(each.shape for each in self.found), named, integers)

    def _width(self) -> tuple[int, ...]:
        layout = self._layout()
        return self.found[0].shape if layout is None else (sum(map(math.prod, layout.shapes)),)

    def _fitting(self, known: list[_Found], file: str) -> _Found:
        self.task = task = self._wanted.make(None, ())
        dataset = self._dataset
        target, classes = dataset.train.y.shape[1:], len(dataset.classes)
        fitting, misfits = [], []
        for each in known:
            for way in (each, replace(each, turned=True), replace(each, labels=True)):
                why = self._misfit(way, target, classes)
                if why is None:
                    fitting.append(way)
                    break
                misfits.append(why)
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            options = " or ".join(f"--output {each.output.name}" for each in fitting)
            raise ModelError(f"{file} has {len(fitting)} outputs that fit {dataset.examples}", f"choose one: {options}")
        gives = ", ".join(str(each.output) for each in known)
        raise ModelError(
            f"{file} gives {gives} an example, not {misfits[0]}",
            f"the data has {dataset.examples}; the task is taken to be {task.name}, and --task gives another",
        )

    def _misfit(self, way: _Found, target: tuple[int, ...], classes: int) -> str | None:
        """What the output so taken is not, of one example; None where it fits."""
        if way.labels:
            fits = self.task.name == "segmentation" and way.output.kind == "i" and _sides(way.shape) == _sides(target)
            return None if fits else "classes of places"
        if way.turned and len(way.shape) < 2:
            return "an answer with channels"
        shape = (way.shape[-1], *way.shape[:-1]) if way.turned else way.shape
        # Of a batch of one, which is left out of what is said.
        why = self.task.misfit((1, *shape), (1, *target), classes)
        return None if why is None else why.replace("(1, ", "(")

    def told(self) -> str:
        """Which outputs are judged, and by what."""
        names = ", ".join(map(str, self.found))
        return f"answers are read from {names}; judged by {self.task.metric.title}"

    def read(self, rows: Rows) -> tuple[NDArray[Any], str]:
        """Answers as the metrics want them: (N, ...)."""
        if self._layout() is not None:
            made = np.concatenate(list(rows), axis=1)
            return made, _odd(made)
        one = self.found[0]
        made = rows[0].reshape(len(rows[0]), *one.shape)
        if one.labels:
            classes = np.arange(len(self._dataset.classes)).reshape(-1, *(1,) * (self._dataset.train.y.ndim - 1))
            maps = made.reshape(len(made), 1, *self._dataset.train.y.shape[1:])
            return (maps == classes).astype(np.float32), ""
        if one.turned:
            made = np.ascontiguousarray(np.moveaxis(made, -1, 1))
        odd = _odd(made)
        if self.task.name == "multi-label" and not self._wanted.ours and are_probabilities(made[np.isfinite(made)]):
            # Metrics take what is above 0 for yes.
            said = "the values are taken for probabilities: yes above 0.5"
            return made - np.float32(0.5), f"{said}; {odd}" if odd else said
        return made, odd

    def figure(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        """The task's metric."""
        return self.task.metric.value(answers, targets)

    def quality(self, figure: float, targets: NDArray[Any]) -> float:
        """As a search maximises it."""
        return self.task.metric.quality(figure, targets)

    def marks(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        """As two networks are compared."""
        return self.task.metric.merits(answers, targets)

    def guesses(self, answers: NDArray[Any], targets: NDArray[Any]) -> bool:
        """Whether the best answer that is always the same gets as much."""
        metric = self.task.metric
        return metric.quality(metric.value(answers, targets), targets) <= metric.chance(targets, answers)

    def show(self, figure: float) -> str:
        """In the metric's terms."""
        return self.task.metric.show(figure)


def scores_on_device(
    session: Session,
    settings: MeasureSettings,
    file: Path,
    dataset: Dataset,
    asked: Asked,
    wanted: JudgedBy,
    progress: Progress,
    images: int | None = None,
) -> Scores:
    """Run the test examples (the first `images`) through the file on the device and judge its answers by their task.

    What the file does not tell and `asked` leaves open is tried on training examples; test examples choose nothing.

    Raises ModelError where the file takes or gives something else, DeviceError where it does not run there, UsageError
    where the user's own score fails.
    """
    answering = _Answers(dataset, asked, wanted)
    model = ForeignFile(session, settings, file, dataset, asked, answering, progress)
    chosen, trials = model.choose()
    test = in_own_order(dataset.test) if asked.stream else dataset.test
    x, targets = test.x[:images], test.y[:images]
    start = time.monotonic()
    rows, remarks = model.answers(x, chosen)
    seconds = time.monotonic() - start
    answers, remark = answering.read(rows)
    task, anomalous = answering.task, None
    if dataset.anomalous is not None:
        anomalous = answering.read(model.answers(dataset.anomalous.x, chosen)[0])[0], dataset.anomalous.y
    found = judge(task, answers, targets, len(dataset.classes), interval=False, anomalous=anomalous).values
    guessing = _guessing(task.metric, targets)
    spec = session.spec
    return Scores(
        file=str(file),
        device=ValidatedOn(spec.name, spec.emulated),
        data=ValidatedData(dataset.name, dataset.fingerprint),
        task=task.name,
        metric=task.metric.name,
        scores=found,
        interval=_interval(task.metric, answers, targets),
        guessing=guessing,
        images=len(targets),
        seconds_per_image=seconds / len(targets),
        layout=chosen.layout,
        preprocessing=chosen.name,
        inputs=tuple(port.name for port in model.ports),
        outputs=model.outputs,
        batch=chosen.batch,
        conventions=(*model.told(chosen), *remarks, *([remark] if remark else [])),
        tried=tuple(TriedScore(way.layout, way.preprocessing, way.figure, way.images) for way in trials),
        advice=() if guessing is None or not answering.guesses(answers, targets) else _advice(task.metric, guessing),
    )


def _interval(metric: Metric, answers: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float] | None:
    """95 %; None of one example, and where the user's own score says nothing of some of them only."""
    if len(targets) < 2:
        return None
    try:
        return metric.interval(answers, targets)
    except UsageError:
        return None


def _guessing(metric: Metric, targets: NDArray[Any]) -> float | None:
    """What guessing gets; None where it is perfect by the user's own score of these few examples."""
    try:
        return metric.constant(targets)
    except UsageError:
        return None


def _advice(metric: Metric, guessing: float) -> tuple[str, ...]:
    """Of an outcome that is no better than guessing: likely causes in order, what to type."""
    return (
        f"no better than guessing: an answer that is always the same gets {metric.show(guessing)}",
        "likely causes, in order: another scaling of the inputs (--preprocessing data, none, unit or MEAN,STD); "
        "targets in another unit than the file's; data that the file was not made for",
    )


def _of_one(output: Output, batch: int) -> tuple[int, ...]:
    """The shape of one answer: without the axis of batches, where there is one."""
    shape = output.shape
    return shape[1:] if shape[:1] == (batch,) else shape


def _number(found: _Found) -> int:
    """Of an output that a tuple held, which is called by its place there; -1 of one with a name."""
    place = found.output.name.removeprefix(_PLACE)
    return int(place) if found.output.name.startswith(_PLACE) and place.isdecimal() else -1


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def _odd(answers: NDArray[Any]) -> str:
    """What is to be said of answers that are no numbers."""
    if answers.dtype.kind != "f" or np.isfinite(answers).all():
        return ""
    odd = ~np.isfinite(answers).reshape(len(answers), -1).all(1)
    return f"{int(odd.sum()):,} of {len(answers):,} examples gave NaN or infinite values"

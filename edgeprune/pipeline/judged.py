"""What `edgeprune validate` needs to know of a file and of data: which task it is, how inputs are scaled and laid out.

A file that a run made says so itself. Of others it is what the user says, else what the targets tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeprune.artifacts import read_metadata
from edgeprune.core.errors import DataError, ExportError, ModelError, UsageError
from edgeprune.core.inputs import InputSpec, Shape, fields, specs_of, written
from edgeprune.core.plain import from_json
from edgeprune.core.progress import Progress
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset, EachInput, Preprocessing, Scaled
from edgeprune.data.preprocessing import resolve
from edgeprune.data.split import as_given, as_integers, channels_first, in_order
from edgeprune.profilers.scores import JudgedBy
from edgeprune.profilers.ways import Scaling
from edgeprune.tasks.names import OWN, TARGETS, WORDS, MetricName, TaskName, named_task, own_task
from edgeprune.tasks.own import load_own, make_own, own_targets
from edgeprune.tasks.resolve import is_same, settle_task
from edgeprune.tasks.task import Task

#: Two words for pixels as stored: what `run` calls it, and what this command always did.
RAW = ("none", "raw")


@dataclass(frozen=True, slots=True)
class Said:
    """What a file says of itself; nothing where no run made it."""

    task: TaskName | None = None
    shape: Shape = ()
    preprocessing: Scaled | None = None

    @property
    def ours(self) -> bool:
        """Whether a run made it."""
        return self.task is not None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known before the file is opened on a device."""

    said: Said
    #: In the layout that the file takes, where it says so.
    dataset: Dataset
    scalings: tuple[Scaling, ...]
    #: How answers are judged that are no single class; None where they are.
    wanted: JudgedBy | None
    #: The task that the user asked for by name.
    task: TaskName | None
    #: Of classes.
    metric: MetricName
    #: Which task it is, and how that is known.
    line: str


def find_known(
    file: Path,
    data: str,
    data_dir: Path | None,
    task: str | None,
    metric: MetricName | None,
    preprocessing: str,
    progress: Progress,
) -> Known:
    """What there is to know of the file and the data; options are those of `edgeprune validate`.

    Raises ModelError and ExportError where the file carries something that cannot be, or does not fit the data,
    DataError for data that cannot be used or are not of the file's task, UsageError for options that do not fit.
    """
    said = _said(file, preprocessing)
    own = own_task(task)
    owner = load_own(own) if own else None
    if task is None and said.task == OWN:
        raise UsageError(
            f"{file.name} was made for a task of its owner's own, and does not carry it", "give --task FILE.py:FUNCTION"
        )
    named = named_task(task)
    # A file's own task tells how targets are to be read; one of its owner's own is not known to others.
    wanted = named or (None if own or said.task == OWN else said.task)
    try:
        dataset = load_data(data, data_dir, seed=0, progress=progress, task=own_targets(own, owner) if own else wanted)
    except DataError as error:
        if named is not None or wanted in (None, "classification", "binary"):
            raise
        # What is wrong with targets depends on what they are read for.
        hint = f"{file.name} was made for {wanted}, and --task gives another"
        raise DataError(error.message, f"{error.hint}; {hint}" if error.hint else hint) from error
    if wanted is not None and named is None and TARGETS[wanted] != dataset.targets:
        raise DataError(
            f"{file.name} was made for {wanted}, which wants {WORDS[TARGETS[wanted]]}, and {dataset.name} has "
            f"{dataset.examples}",
            "give --data of that kind, or the --task that the file is to be judged by",
        )
    dataset = _as_taken(dataset, said.shape)
    scalings = _scalings(file, said, dataset, preprocessing)
    if own:
        make = partial(_own, own, owner, dataset)
        line = f"task: own, of {own}"
        return Known(said, dataset, scalings, JudgedBy(make, own=True, ours=said.ours), None, "accuracy", line)
    x, y, classes = dataset.train.x, dataset.train.y, dataset.classes
    # Of two classes the file's outputs will tell, and how they are read: here only whether the options fit.
    settled = settle_task(wanted, metric, dataset.targets, y, classes, (2, len(classes)), same=is_same(x, y))
    how = "" if named else ", as the file says" if wanted else ", worked out from the targets"
    line = f"task: {settled.name}{how}; judged by {settled.metric.title}"
    if dataset.targets == "classes":
        return Known(said, dataset, scalings, None, named, settled.metric.name, line)
    return Known(
        said, dataset, scalings, JudgedBy(lambda *_: settled, ours=said.ours), named, settled.metric.name, line
    )


def _own(spec: str, owner: Any, dataset: Dataset, outputs: Any, answer: tuple[int, ...]) -> Task:
    return make_own(spec, owner, outputs, dataset.target_layout, answer)


def _said(file: Path, preprocessing: str) -> Said:
    # A file in ONNX Runtime's own format carries nothing of ours.
    if file.suffix.lower() == ".ort":
        return Said()
    try:
        told = read_metadata(file)
    except (ModelError, ExportError):
        # Who says how inputs are scaled needs nothing of what stands there.
        if preprocessing == "auto":
            raise
        return Said()
    each = any(isinstance(side, Mapping) for side in told.get("input_shape") or ())
    shape = tuple(from_json(InputSpec, side) if each else side for side in told.get("input_shape") or ())
    scaled = told.get("preprocessing")
    if scaled is None:
        return Said(told.get("task"), shape)
    return Said(told.get("task"), shape, from_json(EachInput, scaled) if each else from_json(Preprocessing, scaled))


def _as_taken(dataset: Dataset, shape: Shape) -> Dataset:
    """The same examples as a file takes them that says so: inputs in its order, images or not, integers or not.

    Where none of that is its shape they stay: what does not fit is told when the file is opened.
    """
    given = dataset.train.x.dtype.names
    if not shape:
        return dataset
    if given is not None and (names := [spec.name for spec in specs_of(shape) if spec.name in given]):
        dataset = in_order(dataset, names)
    ways: tuple[Callable[[Dataset], Dataset | None], ...] = (lambda it: it, as_given, channels_first, as_integers)
    for way in ways:
        if (found := way(dataset)) is not None and _kinds(found.input_shape) == _kinds(shape):
            return found
    return dataset


def _kinds(shape: Shape) -> list[tuple[str, tuple[int, ...], str]]:
    """What two inputs have in common where one can take the other's place; how many words there are may differ."""
    return [(spec.name, spec.shape, spec.dtype) for spec in specs_of(shape)]


def _scalings(file: Path, said: Said, dataset: Dataset, choice: str) -> tuple[Scaling, ...]:
    """The ways in which stored values may become input. Raises ModelError, UsageError."""
    if choice != "auto":
        names = {"data": "of the data", **dict.fromkeys(RAW, "raw")}
        return (Scaling(names.get(choice, choice), resolve("none" if choice in RAW else choice, dataset)),)
    if said.preprocessing is not None:
        _check_scaled(file, said, said.preprocessing, dataset)
        return (Scaling("of the file", said.preprocessing),)
    words = ("data", "raw") if isinstance(dataset.preprocessing, EachInput) else ("data", "unit", "raw", "0.5,0.5")
    found: list[Scaling] = []
    for word in words:
        scaled = resolve("none" if word == "raw" else word, dataset)
        if scaled not in [each.preprocessing for each in found]:
            found.append(Scaling("of the data" if word == "data" else word, scaled))
    return tuple(found)


def _check_scaled(file: Path, said: Said, own: Scaled, dataset: Dataset) -> None:
    """Raises ModelError unless the file's own scaling is of the data's inputs."""
    arrays = fields(dataset.train.x)
    each = own.inputs if isinstance(own, EachInput) else dict.fromkeys(arrays, own)
    several = isinstance(own, EachInput) != isinstance(dataset.preprocessing, EachInput)
    if several or not set(arrays) <= set(each):
        has = written(dataset.input_shape)
        raise ModelError(
            f"{file.name} takes {written(said.shape)}, and {dataset.name} has "
            f"{has if dataset.train.x.dtype.names else f'one input, {has}'}",
            "give --data the file was made for",
        )
    for name, array in arrays.items():
        one = each[name]
        try:
            if one is not None:
                one.check_fits(array.shape[1])
        except DataError as error:
            what = f"{file.name} carries a {error.message}"
            raise ModelError(what, "give --preprocessing, or other --data") from error

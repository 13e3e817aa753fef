"""What examples are to be answered with: classes, maps of them, several labels, or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.joined import Joined
from edgeprune.core.mapped import changed, parts
from edgeprune.tasks.names import TARGETS, WORDS, TargetKind, TaskName

_LABELS = "labels are one integer per example, 0 to classes-1"


@dataclass(frozen=True, slots=True)
class ReadTargets:
    """Targets of a `kind` as they are stored in a `Split`, by part, and the classes' names (labels': theirs)."""

    kind: TargetKind
    arrays: dict[str, NDArray[Any]]
    classes: tuple[str, ...]
    #: How several arrays lie in one, where the user's own task has several.
    layout: Joined | None = None


def read_targets(
    arrays: Mapping[str, Any],
    inputs: NDArray[Any],
    what: str,
    classes: tuple[str, ...] | None,
    task: TaskName | None,
) -> ReadTargets:
    """What y_train and y_test are.

    `inputs` is x_train, `what` names the origin in messages, `classes` the classes where they are known. Where `task`
    does not say, targets are

    | y_train | taken for |
    |---|---|
    | what x_train is | numbers |
    | integers (N,), (N, 1) | classes |
    | fractions 0.0 and 1.0 (N,), (N, 1) | two classes |
    | integers of the inputs' last axes (N, ...) | a map |
    | 0 and 1 (N, labels) | labels |
    | other fractions (N, ...) | numbers |

    Raises DataError for what is none of these, NaN, classes out of range, or one class only.
    """
    given = {part: as_array(arrays[f"y_{part}"], f"{what}: y_{part}") for part in ("train", "test")}
    for part, each in given.items():
        _check(each, f"{what}: y_{part}")
    kinds = {part: "i" if each.dtype.kind == "u" else each.dtype.kind for part, each in given.items()}
    if kinds["train"] != kinds["test"]:
        types = f"y_train is {given['train'].dtype}, y_test {given['test'].dtype}"
        raise DataError(f"{what}: {types}", "give both as integers for classes, or both as floats for numbers")
    kind = TARGETS[task] if task is not None else _kind(given["train"], inputs, f"{what}: y_train")
    stored = {part: _stored(kind, each, f"{what}: y_{part}") for part, each in given.items()}
    if stored["train"].shape[1:] != stored["test"].shape[1:]:
        raise DataError(
            f"{what}: targets of y_train are {stored['train'].shape[1:]}, of y_test {stored['test'].shape[1:]}",
            "give both alike",
        )
    if kind == "numbers":
        _check_numbers(stored, what, classes)
        return ReadTargets(kind, stored, ())
    if kind == "labels":
        return ReadTargets(kind, stored, _label_names(stored["train"].shape[1], what, classes))
    return ReadTargets(kind, stored, _class_names(stored, what, classes))


def read_names(given: Any, what: str) -> tuple[str, ...] | None:
    """What classes, or labels, are called in their order; None where data do not say. Raises DataError."""
    if given is None:
        return None
    names = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{what}: expected classes to be a list of names, got {given!r:.60}", "name all")
    if len(set(names)) < max(2, len(names)):
        twice = next((name for name in names if names.count(name) > 1), None)
        found = f"'{twice:.40}' twice" if twice else f"{len(names)}"
        raise DataError(f"{what}: expected two or more different names in classes, got {found}", "name each once")
    return tuple(names)


def as_array(given: Any, what: str) -> NDArray[Any]:
    """What was given as an array; `what` names it. Raises DataError where it cannot become one."""
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} cannot become an array: {str(error).splitlines()[0]}", "give numpy arrays") from error


def check_finite(x: NDArray[Any], what: str) -> None:
    """Raises DataError where `x` holds NaN or infinite values; `what` names it."""
    for part in map(x.__getitem__, parts(x)):
        if x.dtype.kind == "f" and not np.isfinite(part).all():
            held = "NaN" if np.isnan(part).any() else "infinite values"
            raise DataError(f"{what} holds {held}", "clean the data first")


def _check(y: NDArray[Any], what: str) -> None:
    if y.size == 0:
        raise DataError(f"{what} is empty", _LABELS)
    if y.ndim == 0 or y.dtype.kind not in "buif":
        held = "a single value" if y.ndim == 0 else y.dtype
        raise DataError(f"{what} holds {held}, not numbers", f"{_LABELS}, or numbers for --task regression")
    check_finite(y, what)


def _kind(y: NDArray[Any], x: NDArray[Any], what: str) -> TargetKind:
    single = y.ndim == 1 or y.shape[1:] == (1,)
    if y.shape == x.shape and all(np.array_equal(y[part], x[part].astype(y.dtype)) for part in parts(x)):
        return "numbers"
    if single:
        return "classes" if y.dtype.kind in "bui" or _yes_or_no(y) else "numbers"
    if y.dtype.kind in "bui" and (_places(y.shape[1:], x) or (y.shape[1] == 1 and _places(y.shape[2:], x))):
        return "map"
    if y.ndim == 2 and _yes_or_no(y):
        if (y.sum(1) == 1).all():
            raise DataError(
                f"{what} has shape {y.shape}",
                f"{_LABELS}; of one-hot rows give argmax(axis=1), or --task multi-label",
            )
        return "labels"
    if y.dtype.kind == "f":
        return "numbers"
    raise DataError(f"{what} has shape {y.shape}", f"{_LABELS}; where they are numbers, give --task regression")


def _places(shape: tuple[int, ...], x: NDArray[Any]) -> bool:
    """Whether the shape is that of the inputs' places: their last axes, or the first ones where channels come last."""
    return x.ndim > 2 and shape in (x.shape[-len(shape) :], x.shape[1 : 1 + len(shape)])


def like_inputs(y: NDArray[Any], x: NDArray[Any]) -> bool:
    """Whether targets are laid out as inputs (N, H, W, C), with their channels last."""
    return y.ndim == x.ndim and y.shape[1:-1] == x.shape[1:-1]


def _yes_or_no(y: NDArray[Any]) -> bool:
    return all(bool(((y[part] == 0) | (y[part] == 1)).all()) for part in parts(y))


def _stored(kind: TargetKind, y: NDArray[Any], what: str) -> NDArray[Any]:
    if kind == "numbers":
        if max(abs(float(y.min())), abs(float(y.max()))) > float(np.finfo(np.float32).max):
            raise DataError(f"{what} holds values too large for float32", "scale the targets first")
        return changed(y, lambda part: part.astype(np.float32))
    if kind == "labels":
        if y.ndim != 2 or not _yes_or_no(y):
            raise DataError(
                f"{what} has shape {y.shape} and values from {y.min():g} to {y.max():g}", f"expected {WORDS[kind]}"
            )
        return y.astype(np.float32)
    if y.dtype.kind == "f" and not all((y[part] == np.floor(y[part])).all() for part in parts(y)):
        raise DataError(f"{what} holds {y.dtype}, not integers", f"{_LABELS}; convert it with .astype('int64')")
    y = changed(y, lambda part: part.astype(np.int64))
    if kind == "classes":
        if y.shape[1:] == (1,):
            y = y[:, 0]
        if y.ndim != 1:
            raise DataError(f"{what} has shape {y.shape}", f"{_LABELS}; of one-hot rows give argmax(axis=1)")
        return y
    if y.ndim > 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim < 2:
        raise DataError(f"{what} has shape {y.shape}", f"expected {WORDS[kind]}, (N, H, W) say")
    return y


def _check_numbers(stored: Mapping[str, NDArray[Any]], what: str, classes: tuple[str, ...] | None) -> None:
    if classes is not None:
        raise DataError(f"{what} names classes, and the targets are numbers", "leave them out, or give --task")
    for part, each in stored.items():
        if not np.ptp(each.reshape(len(each), -1), axis=0).any():
            raise DataError(f"{what}: y_{part} holds the same for every example", "there is nothing to predict")


def _label_names(count: int, what: str, given: tuple[str, ...] | None) -> tuple[str, ...]:
    if given is not None and len(given) != count:
        raise DataError(f"{what} names {len(given)} labels, and y_train has {count}", "name each column")
    return given or tuple(str(label) for label in range(count))


def _class_names(stored: Mapping[str, NDArray[Any]], what: str, given: tuple[str, ...] | None) -> tuple[str, ...]:
    names = given if given is not None else _count_classes(stored["train"], f"{what}: y_train")
    for part, labels in stored.items():
        if labels.min() < 0 or labels.max() >= len(names):
            odd = labels.min() if labels.min() < 0 else labels.max()
            beyond = f"label {odd} is outside 0..{len(names) - 1}"
            raise DataError(
                f"{what}: y_{part}: {beyond}" + (", the classes of y_train" if given is None else ""), _LABELS
            )
    if stored["train"].min() == stored["train"].max():
        raise DataError(
            f"{what}: y_train holds one class only", "there is nothing to tell apart: give at least 2 classes"
        )
    return names


def _count_classes(y: NDArray[np.int64], what: str) -> tuple[str, ...]:
    present = np.unique(np.concatenate([np.unique(y[part]) for part in parts(y)]))
    if present[0] >= 0 and not np.array_equal(present, np.arange(len(present))):
        gap = next(index for index, label in enumerate(present) if index != label)
        raise DataError(
            f"{what} has no example of class {gap} but labels up to {present[-1]}", f"{_LABELS}, without gaps"
        )
    return tuple(str(label) for label in range(len(present)))

"""Which class a model answers, read from its outputs: scores, labels, names, or one number for two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import ModelError
from edgeprune.profilers.ports import Output

#: Where a class is none of the data's.
NONE_OF_THEM = -1


@dataclass(frozen=True, slots=True)
class Reading:
    """How one output is read.

    `kind`: the largest of "scores" is the class; "labels" are the class itself, "names" its name; "one" number tells
    two classes apart. Class k of the data is the model's k + `offset`.
    """

    output: str
    kind: Literal["scores", "labels", "names", "one"]
    width: int = 1
    offset: int | None = None
    #: What the scores belong to, where the file names it.
    keys: tuple[str, ...] = ()
    #: Whether "one" is known to be a logit, whatever its values.
    logit: bool = False

    def __str__(self) -> str:
        """In words, for the product's output."""
        how = {
            "scores": f"the largest of {self.width} values",
            "labels": "labels, compared directly",
            "names": "names of classes, compared directly",
            "one": "one value for two classes",
        }[self.kind]
        shift = f", class k is the model's k + {self.offset}" if self.offset else ""
        return f"{self.output}: {how}{shift}"

    def classes(self, rows: NDArray[Any], names: Sequence[str]) -> tuple[NDArray[np.int64], str]:
        """The data's class of each row (N, width), or NONE_OF_THEM; and what was decided by looking at the values.

        Raises ModelError where a label or a name cannot be the data's.
        """
        if self.kind == "one":
            return _two_classes(rows[:, 0].astype(np.float32), self.logit)
        if self.kind == "names":
            return self._by_name(rows[:, 0], names), ""
        if self.kind == "labels":
            return self._by_label(rows[:, 0].astype(np.int64), len(names)), ""
        best = rows.argmax(1)
        remark = ""
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            odd = ~np.isfinite(rows).all(1)
            remark = f"{int(odd.sum()):,} of {len(rows):,} images gave NaN or infinite values, and count as wrong"
            best = np.where(odd, NONE_OF_THEM, best)
        if self.keys and set(self.keys) >= set(names) and not self.offset:
            found = self._by_name(np.array(self.keys)[best], names)
        elif self.keys and all(key.lstrip("-").isdigit() for key in self.keys):
            found = self._by_label(np.array([int(key) for key in self.keys])[best], len(names))
        else:
            shifted = best - (self.offset or 0)
            found = np.where((shifted >= 0) & (shifted < len(names)), shifted, NONE_OF_THEM)
        return np.where(best == NONE_OF_THEM, NONE_OF_THEM, found), remark

    def columns(self, names: Sequence[str]) -> NDArray[np.int64] | None:
        """The place of each of the data's classes among the scores; None where there are none, or not of each."""
        if self.kind != "scores":
            return None
        if not self.keys:
            return np.arange(len(names)) + (self.offset or 0)
        keys = [str(label + (self.offset or 0)) for label in range(len(names))]
        if set(self.keys) >= set(names) and not self.offset:
            keys = list(names)
        return np.array([self.keys.index(key) for key in keys]) if set(self.keys) >= set(keys) else None

    def _by_label(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        shifted = labels - (self.offset or 0)
        outside = (shifted < 0) | (shifted >= classes)
        if outside.any() and self.offset is None:
            raise ModelError(
                f"output {self.output} gives labels from {labels.min()} to {labels.max()}, expected those of the "
                f"data, 0 to {classes - 1}",
                f"where the first class is {labels.min()}, give --label-offset {labels.min()}"
                if labels.min() > 0 and labels.max() < classes + labels.min()
                else "",
            )
        return np.where(outside, NONE_OF_THEM, shifted)

    def _by_name(self, given: NDArray[Any], names: Sequence[str]) -> NDArray[np.int64]:
        places = {name: index for index, name in enumerate(names)}
        strange = sorted({str(name) for name in given} - set(places))
        if strange:
            raise ModelError(
                f"output {self.output} gives the class {strange[0]!r:.60}, which the data does not have",
                f"the data's classes are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}; name them alike",
            )
        return np.array([places[str(name)] for name in given], np.int64)


def choose(
    given: Sequence[Output], batch: int, classes: int, file: str, name: str = "", offset: int | None = None
) -> Reading:
    """The output that tells the class, and how it is read: the one named, or the only one that fits the classes.

    Integers, one for each image, are labels, and where they come first they are taken. Otherwise the output with as
    many values as the data has classes (with an offset: that and more) is; then one value for two classes.

    Raises ModelError where none fits, or several do.
    """
    if name and name not in {each.name for each in given}:
        raise ModelError(f"{file} has no output '{name}'", f"its outputs: {', '.join(map(str, given))}")
    known = [each for each in given if each.kind in ("f", "i", "U", "map") and each.width(batch)]
    asked = [each for each in known if each.name == name] if name else known
    readings = [reading for each in asked if (reading := _reading(each, batch, classes, offset))]
    if readings and asked[0].name == readings[0].output and readings[0].kind in ("labels", "names"):
        return readings[0]
    for kinds in (("scores",), ("one",), ("labels", "names")):
        fitting = [reading for reading in readings if reading.kind in kinds]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            options = " or ".join(f"--output {reading.output}" for reading in fitting)
            raise ModelError(f"{file} has {len(fitting)} outputs that fit {classes} classes", f"choose one: {options}")
    raise _misfit(asked, given, batch, classes, file, offset)


def _reading(output: Output, batch: int, classes: int, offset: int | None) -> Reading | None:
    width = output.width(batch)
    if width == 1 and output.kind == "U":
        return Reading(output.name, "names", 1, offset)
    if width == 1 and output.kind == "i":
        return Reading(output.name, "labels", 1, offset)
    if width == classes or (offset is not None and width >= classes + offset):
        return Reading(output.name, "scores", width, offset, output.keys)
    if width == 1 and classes == 2 and output.kind == "f":
        return Reading(output.name, "one")
    return None


def _misfit(
    asked: Sequence[Output], given: Sequence[Output], batch: int, classes: int, file: str, offset: int | None
) -> ModelError:
    has = f"the data has {classes} classes"
    if not asked:
        return ModelError(f"{file} gives nothing that tells a class: {', '.join(map(str, given))}", "")
    width = asked[0].width(batch)
    shifted = "" if offset is None else f" from {offset} on"
    if len(asked) > 1:
        outputs = ", ".join(f"{each.name} {each.width(batch)}" for each in asked)
        return ModelError(f"no output of {file} has one value per class{shifted} ({outputs} an image), {has}", "")
    more = width - classes
    hint = ""
    if more > 0 and offset is None:
        hint = (
            f"where a background class comes first, give --label-offset {more}; where they come last, --label-offset 0"
        )
    return ModelError(f"{file} gives {width} numbers an image, {has}{shifted}", hint)


def _two_classes(values: NDArray[np.float32], logit: bool) -> tuple[NDArray[np.int64], str]:
    """Class 1 above the middle, which is 0.5 of probabilities and 0 of logits.

    The values tell which they are, unless it is known that they are logits.
    """
    odd = ~np.isfinite(values)
    inside = not logit and are_probabilities(values[~odd])
    middle, what = (0.5, "a probability") if inside else (0.0, "a logit")
    low, high = (float(values[~odd].min()), float(values[~odd].max())) if not odd.all() else (0.0, 0.0)
    remark = f"the values, {low:.3g} to {high:.3g}, are taken for {what}: class 1 above {middle:g}"
    if odd.any():
        remark += f"; {int(odd.sum()):,} of {len(values):,} are NaN or infinite, and count as wrong"
    return np.where(odd, NONE_OF_THEM, (values > middle).astype(np.int64)), remark


def are_probabilities(values: NDArray[Any]) -> bool:
    """Whether no value is outside [0, 1]: logits of many examples hardly ever all lie there."""
    return bool(((values >= 0) & (values <= 1)).all())


def other_order(found: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> tuple[float, list[int]]:
    """The best share of right answers with the classes in another order, and the order: order[i] for the model's i.

    With few images per class every order fits a little, so this is only worth looking at from ten per class on.
    """
    table = np.zeros((classes, classes), np.int64)
    seen = found != NONE_OF_THEM
    np.add.at(table, (found[seen], labels[seen]), 1)
    # The most frequent pairs first: an order that is worth telling is told by most of the examples.
    order, left = [-1] * classes, set(range(classes))
    for row, column in zip(*np.unravel_index(np.argsort(-table, axis=None, kind="stable"), table.shape), strict=True):
        if order[row] < 0 and column in left:
            order[int(row)] = int(column)
            left.remove(column)
    return float(table[np.arange(classes), order].sum() / max(1, len(labels))), order

"""What of an exported file depends on widths without being a weight: worked out from exports at several widths.

Reshape targets, beginnings of slices, groups, divisors of means: where exports of one network at several widths differ
in more than weights, a number follows from the sizes of weights. Which sizes, and how, is looked for among few forms;
what no form fits is not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.design import Group
from edgeprune.exporters.codes import Ints, TemplateError

Numbers = NDArray[Any]
#: Whose number it is: the type of an operator, its place in the file, and which operand or attribute.
Key = tuple[str, int, Any]
#: Of each constant that is made of weights, in the order in which operators read them: its shape.
Shapes = Sequence[tuple[int, ...]]


#: How often widths are drawn for one group.
_DRAWS = 100


def apart(groups: Sequence[Group], count: int) -> list[dict[str, int]]:
    """`count` choices of widths: no two groups keep the same shares in all of them, nor one group a share twice.

    So a number that follows from one group's width follows from no other's, but where groups have few channels.
    """
    generator, taken = np.random.default_rng(0), set[tuple[Fraction, ...]]()
    found: list[dict[str, int]] = [{} for _ in range(count)]
    for group in groups:
        # One channel alone a converter may treat otherwise; of two heads one has to go all the same.
        least = min(max(1, group.floor, min(2, group.channels - 1), group.channels // 4), group.channels)
        for _ in range(_DRAWS):
            drawn = generator.integers(least, max(least + 1, group.channels), count)
            shares = tuple(Fraction(int(width), group.channels) for width in drawn)
            if shares not in taken and len({*shares}) == count:
                break
        taken.add(shares)
        for widths, width in zip(found, drawn, strict=True):
            widths[group.name] = int(width)
    return found


@dataclass(frozen=True, slots=True)
class Width:
    """An export at one choice of widths."""

    shapes: Shapes
    #: All numbers of the file that are no weights: constants, attributes of operators.
    numbers: Mapping[Key, Numbers]
    #: What must be alike in all exports: the operators, and who reads whom.
    wiring: Hashable


@dataclass(frozen=True, slots=True)
class _Rule:
    """A number: a sum of products of sizes, each size to the power 1 or -1."""

    terms: tuple[tuple[Fraction | float, tuple[tuple[int, int], ...]], ...]

    def value(self, sizes: Ints) -> Fraction | float:
        return sum(
            (factor * math.prod(Fraction(int(sizes[place])) ** power for place, power in powers))
            for factor, powers in self.terms
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """Numbers that depend on widths: their shape, and each of them, one for all, or counted from 0."""

    dtype: np.dtype[Any]
    shape: tuple[_Rule, ...]
    content: tuple[_Rule, ...] | Literal["counted"]

    def made(self, sizes: Ints) -> Numbers:
        shape = tuple(_whole(rule.value(sizes)) for rule in self.shape)
        if self.content == "counted":
            return np.arange(int(np.prod(shape)), dtype=self.dtype).reshape(shape)
        values = [rule.value(sizes) for rule in self.content]
        if not np.issubdtype(self.dtype, np.floating):
            values = [_whole(value) for value in values]
        content = np.array([float(each) if isinstance(each, Fraction) else each for each in values], self.dtype)
        return np.full(shape, content[0]) if len(content) == 1 else content.reshape(shape)


class Learnt:
    """What numbers a file has at other widths."""

    def __init__(self, widths: Sequence[Width]) -> None:
        """From exports at several widths, each group's another, the unpruned one first.

        Raises TemplateError where they differ in more than numbers, or a number follows from no sizes.
        """
        first = widths[0]
        ranks = [len(shape) for shape in first.shapes]
        for each in widths[1:]:
            alike = each.wiring == first.wiring and each.numbers.keys() == first.numbers.keys()
            if not alike or [len(shape) for shape in each.shapes] != ranks:
                raise TemplateError("cannot slice: at other widths the converter makes other operators")
        #: Sizes of weights, of each export (rows), on all axes one after the other.
        self._sizes = np.array([_sizes(each.shapes) for each in widths])
        # Sizes that are alike in every export are one; those that never change tell nothing.
        varying = [place for place in range(self._sizes.shape[1]) if len(set(self._sizes[:, place])) > 1]
        self._columns = [*{tuple(self._sizes[:, place]): place for place in reversed(varying)}.values()]
        self._first = first.shapes
        self._known: dict[tuple[Any, ...], _Rule] = {}
        self._entries = {
            key: entry
            for key in first.numbers
            if (entry := self._entry(key, [each.numbers[key] for each in widths])) is not None
        }

    def numbers(self, shapes: Sequence[tuple[int, ...] | None]) -> dict[Key, Numbers]:
        """What differs from the unpruned file where weights have these shapes, None for those of which nothing is left.

        Raises TemplateError.
        """
        sizes = _sizes([one or whole for one, whole in zip(shapes, self._first, strict=True)])
        gone = np.repeat([one is None for one in shapes], [len(whole) for whole in self._first])
        for place in self._columns if gone.any() else ():
            # Other weights of the same size in every export may be left.
            alike = np.flatnonzero((self._sizes == self._sizes[:, [place]]).all(0) & ~gone)
            if gone[place] and len(alike):
                sizes[place] = sizes[alike[0]]
        return {key: entry.made(sizes) for key, entry in self._entries.items()}

    def _entry(self, key: Key, found: Sequence[Numbers]) -> _Entry | None:
        first = found[0]
        if all(np.array_equal(first, each) for each in found):
            return None
        if len({each.ndim for each in found}) > 1 or first.dtype == np.bool_:
            raise TemplateError(f"cannot slice: {_named(key)} is another at each width")
        shape = tuple(self._rule(key, [each.shape[axis] for each in found]) for axis in range(first.ndim))
        flat = [each.ravel() for each in found]
        if len({each.shape for each in found}) == 1:
            return _Entry(first.dtype, shape, tuple(self._rule(key, numbers) for numbers in zip(*flat, strict=True)))
        if all(len(each) and (each == each[0]).all() for each in flat):
            return _Entry(first.dtype, shape, (self._rule(key, [each[0] for each in flat]),))
        if all(np.array_equal(each, np.arange(len(each))) for each in flat):
            return _Entry(first.dtype, shape, "counted")
        raise TemplateError(f"cannot slice: {_named(key)} is another at each width")

    def _rule(self, key: Key, numbers: Sequence[Any]) -> _Rule:
        found = np.array(numbers)
        asked = (found.dtype.kind, *found.tolist())
        if asked not in self._known:
            rule = self._form(found)
            if rule is None:
                raise TemplateError(f"cannot slice: how {_named(key)} depends on widths is not seen")
            self._known[asked] = rule
        return self._known[asked]

    def _form(self, found: Numbers) -> _Rule | None:
        """The simplest form that gives these numbers, one of each export."""
        if np.issubdtype(found.dtype, np.floating):
            return self._real(found)
        if (found == found[0]).all():
            return _Rule(((Fraction(int(found[0])), ()),))
        found = found.astype(np.int64)
        columns = [(place, self._sizes[:, place]) for place in self._columns]
        for place, size in columns:
            if (found * size[0] == found[0] * size).all():
                return _Rule(((Fraction(int(found[0]), int(size[0])), ((place, 1),)),))
        for place, size in columns:
            # A size and something that stays.
            if (found - size == found[0] - size[0]).all():
                return _Rule(((Fraction(1), ((place, 1),)), (Fraction(int(found[0] - size[0])), ())))
        for number, (one, first) in enumerate(columns):
            for other, second in columns[number:]:
                if (found == first + second).all():
                    return _Rule(((Fraction(1), ((one, 1),)), (Fraction(1), ((other, 1),))))
                if (found * first[0] * second[0] == found[0] * first * second).all():
                    factor = Fraction(int(found[0]), int(first[0] * second[0]))
                    return _Rule(((factor, ((one, 1), (other, 1))),))
        for one, first in columns:
            for other, second in columns:
                if (found == first - second).all():
                    return _Rule(((Fraction(1), ((one, 1),)), (Fraction(-1), ((other, 1),))))
                if (found * second * first[0] == found[0] * second[0] * first).all():
                    factor = Fraction(int(found[0] * second[0]), int(first[0]))
                    return _Rule(((factor, ((one, 1), (other, -1))),))
        return None

    def _real(self, found: Numbers) -> _Rule | None:
        """Real numbers: one that stays, or what is divided by a size, or multiplied with it."""
        if (found == found[0]).all():
            return _Rule(((float(found[0]), ()),))
        for power in (-1, 1):
            for place in self._columns:
                sizes = self._sizes[:, place].astype(np.float64) ** power
                factor = float(found[0] / sizes[0])
                if np.allclose(found, factor * sizes, rtol=1e-6, atol=0):
                    return _Rule(((factor, ((place, power),)),))
        return None


def _sizes(shapes: Shapes) -> Ints:
    return np.array([size for shape in shapes for size in shape], np.int64)


def _whole(value: Fraction | float) -> int:
    if int(value) != value:
        raise TemplateError("cannot slice: a width that the file cannot have")
    return int(value)


def _named(key: Key) -> str:
    kind, number, which = key
    return f"a number of {kind} ({number}, {which})"

"""Numbers of a file that follow from widths: which forms are seen, and that nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgeprune.core.design import Group
from edgeprune.exporters.codes import TemplateError
from edgeprune.exporters.widths import Learnt, Width, apart

#: Sizes of two weights, (a, 3) and (b, a), in three exports, and in one to come.
SEEN, ASKED = ((64, 48), (35, 29), (18, 40)), (21, 12)


def exported(a: int, b: int, number: Any, wiring: str = "w") -> Width:
    return Width([(a, 3), (b, a)], {("Reshape", 0, 1): np.asarray(number)}, wiring)


def found(number: Callable[[int, int], Any]) -> np.ndarray[Any, Any]:
    learnt = Learnt([exported(a, b, number(a, b)) for a, b in SEEN])
    a, b = ASKED
    (array,) = learnt.numbers([(a, 3), (b, a)]).values()
    return array


@pytest.mark.parametrize(
    "number",
    [
        lambda a, _: a,
        lambda _, b: 4 * b,
        lambda a, b: a + b,
        lambda a, b: b - a,
        lambda a, b: a * b,
        lambda a, _: a + 2,
        lambda a, b: [-1, 2, b, a],
        lambda a, b: [[a, b], [0, a + b]],
        lambda a, _: 1 / np.float32(a),
        lambda _, b: np.float32(2.5) * b,
        # As many as there are channels: all alike, or counted.
        lambda a, _: np.zeros(a, np.float32),
        lambda a, b: np.full((b, 1, a), b),
        lambda a, _: np.arange(a),
    ],
)
def test_a_number_follows_from_the_sizes_of_weights(number: Callable[[int, int], Any]) -> None:
    wanted, array = np.asarray(number(*ASKED)), found(number)
    assert array.dtype == wanted.dtype
    np.testing.assert_allclose(array, wanted, rtol=1e-6)


def test_heads_are_a_quotient_of_two_sizes() -> None:
    # a = heads * 4 and b = heads * width: the width is 4 * b / a.
    seen = ((32, 64), (16, 24), (24, 60))
    learnt = Learnt([exported(a, b, 4 * b // a) for a, b in seen])
    (array,) = learnt.numbers([(8, 3), (10, 8)]).values()
    assert array == 5
    with pytest.raises(TemplateError, match="a width that the file cannot have"):
        learnt.numbers([(16, 3), (10, 16)])


def test_what_is_the_same_at_all_widths_is_left_alone() -> None:
    assert Learnt([exported(a, b, [3, 1]) for a, b in SEEN]).numbers([(21, 3), (12, 21)]) == {}


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (lambda a, b: a * a + b, r"how a number of Reshape \(0, 1\) depends on widths is not seen"),
        (lambda a, _: np.sqrt(np.float32(a)), "is not seen"),
        (lambda a, _: np.arange(a)[::-1], "another at each width"),
        (lambda a, _: np.zeros((a,) * (1 + (a < 30))), "another at each width"),
        (lambda a, _: a > 30, "another at each width"),
    ],
)
def test_nothing_is_guessed(number: Callable[[int, int], Any], says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        found(number)


def test_other_operators_at_another_width_are_refused() -> None:
    seen = [exported(a, b, a, "other" if a < 20 else "same") for a, b in SEEN]
    with pytest.raises(TemplateError, match="at other widths the converter makes other operators"):
        Learnt(seen)
    # So is a number that only some have: an attribute, or a table that was small enough to look at.
    seen = [exported(a, b, a) for a, b in SEEN]
    for place, number in ((0, {}), (2, {("Pad", 1, "mode"): np.asarray(1)})):
        others = [*seen]
        others[place] = replace(seen[place], numbers=number if not place else {**seen[place].numbers, **number})
        with pytest.raises(TemplateError, match="other operators"):
            Learnt(others)


def test_no_two_groups_keep_the_same_shares() -> None:
    groups = [Group(f"g{n}", c, 1, 4, 0.0, 0.0, 0, ("l",)) for n, c in enumerate([64] * 12 + [8] * 12 + [2, 1])]
    widths = apart(groups, 2)
    assert all(0 < each[group.name] <= group.channels for each in widths for group in groups)
    shares = [tuple(Fraction(each[g.name], g.channels) for each in widths) for g in groups if g.channels > 2]
    assert len({*shares}) == len(shares)
    assert all(len({*each, Fraction(1)}) == 3 for each in shares)


def test_what_follows_from_weights_that_are_gone_is_told_by_others_of_their_size() -> None:
    key = ("Reshape", 0, 1)
    exports = [Width([(width, 3), (5, width)], {key: np.array([width])}, "one") for width in (8, 6, 4)]
    learnt = Learnt(exports)
    assert learnt.numbers([(2, 3), (5, 2)])[key].tolist() == [2]
    assert learnt.numbers([None, (5, 2)])[key].tolist() == [2]
    assert learnt.numbers([(2, 3), None])[key].tolist() == [2]

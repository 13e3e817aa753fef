"""What of a file can stay in float32: operators, each with those that read what it gives.

A tensor between two operators has 8 bits where one of them has, so what an operator gives keeps its resolution only
where its readers stay in float32 as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operator:
    """One of a file: how people may know it (None: it only moves values), and the tensors that it takes and gives."""

    label: str | None
    reads: tuple[Hashable, ...]
    gives: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """What stays in float32 together: what `label` gives, and the numbers of the operators that see it."""

    label: str
    operators: frozenset[int]


def units_of(operators: Sequence[Operator], inputs: Sequence[Hashable]) -> tuple[Unit, ...]:
    """One for the inputs, and one for each operator that is no mere move, in order.

    Numbers are places in `operators`. Moves go with what they move.
    """
    readers: dict[Hashable, set[int]] = defaultdict(set)
    # From the last on: who reads what a move gives reads what the move took.
    for number in reversed(range(len(operators))):
        each = operators[number]
        seen = {number}.union(*(readers[name] for name in each.gives)) if each.label is None else {number}
        for name in each.reads:
            readers[name] |= seen
    found = [Unit("input", frozenset().union(*(readers[name] for name in inputs)))]
    names: Counter[str] = Counter()
    for number, each in enumerate(operators):
        if each.label is not None:
            names[each.label] += 1
            again = f" ({names[each.label]})" if names[each.label] > 1 else ""
            seen = {number}.union(*(readers[name] for name in each.gives))
            found.append(Unit(each.label + again, frozenset(seen)))
    return tuple(found)

"""The precisions that a search is held at: one, or those that are worth it of `--precision auto`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from edgeprune.core.budget import Budget
from edgeprune.core.errors import BudgetError
from edgeprune.pipeline.possible import check_possible, with_defaults
from edgeprune.pipeline.precisions import weigh
from edgeprune.pipeline.records.search import Possible, Weighed
from edgeprune.pipeline.workshop import Narrowest, Workshop, measure_narrowest


@dataclass(frozen=True, slots=True)
class Side:
    """One precision that is searched at, and the narrowest network's file of it."""

    shop: Workshop
    narrowest: Narrowest


@dataclass(frozen=True, slots=True)
class Field:
    """The precisions that are searched at, and what was found out of all where the search chooses; `shop` is fp32's."""

    shop: Workshop
    sides: tuple[Side, ...]
    weighed: tuple[Weighed, ...] = ()

    @property
    def possible(self) -> Possible:
        """The best of each figure that any of them reaches."""
        each = [side.narrowest.possible for side in self.sides]
        return replace(
            each[0],
            latency_share=min(one.latency_share for one in each),
            memory_share=min(one.memory_share for one in each),
            smallest_bytes=min(one.smallest_bytes for one in each),
        )

    def again(self) -> Field:
        """With all narrowest networks measured afresh."""
        return replace(self, sides=tuple(Side(one.shop, measure_narrowest(one.shop, fresh=True)) for one in self.sides))

    def able(self, budget: Budget) -> list[Side]:
        """Those that can keep a budget by themselves; all where none is told to."""
        found = []
        for side in self.sides:
            with suppress(BudgetError):
                check_possible(budget, side.narrowest.possible, "", self.shop.prepared.structure)
                found.append(side)
        return found or list(self.sides)


def field_of(shop: Workshop, narrowest: Narrowest, asked: Sequence[Budget]) -> Field:
    """The precisions that are searched at: the one of `shop`, or those that are worth it where the search chooses."""
    alone = Field(shop, (Side(shop, narrowest),))
    if not shop.prepared.shipped.choose:
        return alone
    budgets = [with_defaults(one, narrowest.possible, shop.prepared.task.metric) for one in asked]
    if all(bound is None for each in budgets for bound in (each.max_latency, each.max_memory, each.max_bytes)):
        shop.progress.say(
            "--precision auto: nothing is bounded that a precision changes, so files are fp32 "
            "(bound latency, memory or bytes, or name the precisions)"
        )
        return alone
    most_lost = max(each.max_drop for each in budgets if each.max_drop is not None)
    shops, weighed = weigh(shop, budgets, most_lost)
    sides = tuple(Side(each, narrowest if each.precision == "fp32" else measure_narrowest(each)) for each in shops)
    return Field(shop, sides, weighed)

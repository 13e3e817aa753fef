"""Bounds as options give them: one each, or several of one option, which asks for a front."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, get_args

from edgeprune.core.budget import Bound
from edgeprune.core.errors import UsageError
from edgeprune.core.units import parse_bytes, parse_latency, refuse_unit


@dataclass(frozen=True, slots=True)
class Asked:
    """One bound: how it is written, what it says, and the name of its folder in a front.

    The name is the same however the bound is spelled: `0.6x` for "0.60x", `5ms` for "0.005s", `ncr-4` for "4.0".
    """

    text: str
    value: Bound | float
    name: str

    @property
    def relative(self) -> bool:
        """Whether it is a share of the unpruned network's."""
        return isinstance(self.value, Bound) and self.value.relative

    @property
    def looseness(self) -> float:
        """What sorts bounds, the loosest last: a larger limit, a smaller NCR."""
        return self.value.value if isinstance(self.value, Bound) else -self.value


def read_drop(given: str | float) -> tuple[float, bool]:
    """What --max-drop says: the number, and whether it is relative ("5%"). Raises UsageError for what is neither."""
    text = str(given).strip()
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        hint = "write 1 for a point of a share such as accuracy, or 5% for an error that may grow by a twentieth"
        raise UsageError(f"--max-drop must be 0 or more, got '{text:.40}'", hint)
    return value, relative


def read_bounds(field: str, given: str | float | None) -> tuple[Asked, ...]:
    """The bounds that the option of `field` holds, the loosest first, whatever order they are typed in.

    Raises UsageError for what is no bound, one that is there twice, and bounds that cannot be put in order.
    """
    if given is None:
        return ()
    option = f"--{field.replace('_', '-')}"
    texts = [part.strip() for part in str(given).split(",")]
    found = sorted((PARSERS[field](text, option) for text in texts), key=lambda each: -each.looseness)
    for one, other in pairwise(found):
        if one.name == other.name:
            raise UsageError(f"{option}: the bound {one.name} is there twice ({given})", "leave one out")
    kinds = {(each.relative, each.value.unit if isinstance(each.value, Bound) else "") for each in found}
    if len(kinds) > 1:
        raise UsageError(
            f"{option}: {given} cannot be put in order before the device is measured",
            "give all as shares of the unpruned network's (0.6x), or all in the same unit",
        )
    return tuple(found)


def _latency(text: str, option: str) -> Asked:
    bound = parse_latency(text, option)
    shown = f"{bound.value / 1e6:g}Minsn" if bound.unit == "instructions" else f"{1e3 * bound.value:g}ms"
    return _spelled(text, bound, shown, lambda name: parse_latency(name, option))


def _size(text: str, option: str) -> Asked:
    bound = parse_bytes(text, option)
    shown = f"{bound.value / 1e6:g}MB" if bound.value >= 1e6 else f"{bound.value / 1e3:g}kB"
    return _spelled(text, bound, shown, lambda name: parse_bytes(name, option))


def _spelled(text: str, bound: Bound, shown: str, parse: Callable[[str], Bound]) -> Asked:
    """Under its name, which is also its text unless the six digits of a name are too few for it."""
    name = f"{bound.value:g}x" if bound.relative else shown
    return Asked(name if parse(name) == bound else text, bound, name)


def _rate(text: str, option: str) -> Asked:
    refuse_unit(text, option, share=False)
    try:
        rate = float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r:.60} is not a number", "write it like 4") from None
    if not 1 <= rate <= LARGEST_RATE:
        raise UsageError(f"{option} must be at least 1 and at most {LARGEST_RATE:,}", "see edgeprune run --help")
    return Asked(text, rate, f"ncr-{rate:g}")


#: What a front is told in, and its picture, beside the folders of the bounds.
FRONT, PICTURE = "front.json", "front.png"
#: The page that `edgeprune run` leaves in a run's folder.
REPORT = "report.html"
#: The file that says which bounds of a front were searched for, in their order, and in how many episodes.
SEARCHES = "searches.json"
#: No network has more neurons than that to one that is left.
LARGEST_RATE = 1_000_000
#: The options that may hold several bounds, by field.
Bounded = Literal["max_latency", "max_memory", "max_bytes", "expect_ncr"]
BOUNDED: tuple[Bounded, ...] = get_args(Bounded)
#: How one bound of each is read.
PARSERS: Mapping[str, Callable[[str, str], Asked]] = MappingProxyType(
    {"max_latency": _latency, "max_memory": _size, "max_bytes": _size, "expect_ncr": _rate}
)

"""Whether B is worse than A in a figure, told from noise. Pure functions.

A change counts where its whole 95 % interval lies beyond what the gate allows and beyond the noise floor: how far a
copy of A, or a file that both records have, seemed to be off itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.core.errors import UsageError
from edgeprune.core.kinds import Unit
from edgeprune.profilers.gate import Direction, FigureName, FigureUnit, Threshold
from edgeprune.profilers.statistics import Interval, cost_interval, quotient_interval

#: "same": not worse by more than may be, "open": the interval does not tell.
Decision = Literal["better", "same", "worse", "open", "missing"]


@dataclass(frozen=True, slots=True)
class Ends:
    """An interval of 95 %; of a figure that is known exactly both ends are the figure."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one figure of A and B, in `unit`."""

    unit: FigureUnit
    a: float
    b: float
    #: B - A; of raced files as the paired rounds have it.
    change: float
    #: Of `change`; None where nothing tells it.
    interval: Ends | None
    #: The control's cost as a share of what it is a copy of; None without one.
    control: Interval | None = None

    @property
    def floor(self) -> float | None:
        """How large a change noise makes, in `unit`: the far end of the control's interval."""
        return None if self.control is None else abs(self.a) * (max(self.control.high, 1 / self.control.low) - 1)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of both, and what was decided. None where it is missing."""

    figure: FigureName
    unit: FigureUnit | None
    a: float | None
    b: float | None
    change: float | None
    #: `change` in percent of A; None also where A is 0.
    percent: float | None
    interval: Ends | None
    control: Interval | None
    floor: float | None
    #: By how much it may become worse, by the gate.
    allowed: float | None
    #: The change for the worse beyond which it counts: what is allowed, or the floor where that is more.
    limit: float | None
    verdict: Decision
    #: It is worse; or it is missing, and the gate says that this fails.
    regression: bool


def from_quotient(
    unit: FigureUnit, a: float, b: float, quotient: Interval | None, control: Interval | None
) -> Evidence:
    """The evidence of a cost B as a share of A's; without a `quotient` no interval is known.

    With one B is A times the quotient: by itself it may, of raced files, be off by what both were off by together.
    """
    if quotient is None:
        return Evidence(unit, a, b, b - a, None, control)
    low, value, high = (a * (share - 1) for share in (quotient.low, quotient.value, quotient.high))
    return Evidence(unit, a, a + value, value, Ends(low, high), control)


def exactly(unit: FigureUnit, a: float, b: float, control: Interval | None = None) -> Evidence:
    """The evidence of a figure that does not vary."""
    return Evidence(unit, a, b, b - a, Ends(b - a, b - a), control)


def paired(points: Sequence[float], against: Sequence[float], process: Sequence[int], unit: Unit) -> Interval | None:
    """The quotient of figures of the same rounds; None where a single process says nothing of how fresh ones differ."""
    if unit == "instructions":
        return cost_interval(points, against, process)
    return quotient_interval(points, against, process) if len(set(process)) > 1 else None


def decide(figure: FigureName, found: Evidence | None, threshold: Threshold, better: Direction = "lower") -> Figure:
    """The verdict on one figure; `better` is what the figure's own nature says.

    worse   the interval of the change for the worse lies wholly beyond the limit, which is never below the floor
    better  that of the change for the better
    same    no change for the worse as large as the limit is in the interval
    open    it holds the limit; or there is no interval, and the change is beyond it

    Raises UsageError where the gate's direction, or its unit, is not the figure's.
    """
    if found is None:
        nothing = (None,) * 9
        return Figure(figure, *nothing, None, "missing", threshold.missing == "fail")
    if threshold.direction not in (None, better):
        raise UsageError(
            f"the gate says that of {figure} {threshold.direction} is better, and of this metric {better} is",
            f'write direction = "{better}", or leave it out',
        )
    allowed = threshold.allowed(found.a, found.unit, figure)
    limit = max(allowed, found.floor or 0.0)
    sign = 1 if better == "lower" else -1
    ends = found.interval or Ends(found.change, found.change)
    least, most = sorted((sign * ends.low, sign * ends.high))
    if least > limit:
        verdict: Decision = "worse" if found.interval else "open"
    elif most < -limit:
        verdict = "better" if found.interval else "open"
    else:
        verdict = "same" if most <= limit else "open"
    percent = 100 * found.change / abs(found.a) if found.a else None
    return Figure(
        figure=figure,
        unit=found.unit,
        a=found.a,
        b=found.b,
        change=found.change,
        percent=percent,
        interval=found.interval,
        control=found.control,
        floor=found.floor,
        allowed=allowed,
        limit=limit,
        verdict=verdict,
        regression=verdict == "worse",
    )

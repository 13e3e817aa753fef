"""Other units than seconds, bytes and shares: they exist only here, on the way in and on the way out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from edgeprune.core.budget import Bound
from edgeprune.core.errors import UsageError
from edgeprune.core.kinds import Unit

_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_INSTRUCTIONS = {"minsn": 1e6}
_BYTES = {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zµ]+|%)\s*", re.IGNORECASE)


def parse_latency(text: str, option: str) -> Bound:
    """`"5ms"` -> 0.005 s; `"12Minsn"` -> 12 million instructions; `"0.6x"` -> 0.6 of the unpruned network's.

    Raises UsageError naming `option`.
    """
    bound = _parse(text, option, _TIME | _INSTRUCTIONS, "5ms, 800us or 0.6x (emulated boards: 12Minsn)")
    counted = text.strip().lower().endswith("insn")
    return replace(bound, unit="instructions") if counted else bound


def parse_bytes(text: str, option: str) -> Bound:
    """`"20MB"` -> 20,000,000 bytes; `"0.6x"` -> 0.6 of the unpruned network's. Raises UsageError naming `option`."""
    return replace(_parse(text, option, _BYTES, "20MB, 300kB or 0.6x"), unit="bytes")


def unit_scale(unit: str) -> float:
    """How many seconds, instructions or bytes one of `unit` is: `"ms"` -> 0.001. Raises KeyError."""
    return (_TIME | _INSTRUCTIONS | _BYTES)[unit.lower()]


def refuse_unit(text: str, option: str, *, share: bool) -> None:
    """Raises UsageError, with the right spelling, for a number with a unit where `option` takes a plain number.

    `"90%"` is 0.9 where the option takes a `share`, else 90 (of points, say); `"3x"` is 3. Other texts pass.
    """
    match = _NUMBER.fullmatch(text)
    if match and match[2].lower() in ("%", "x"):
        value = float(match[1]) / (100 if share and match[2] == "%" else 1)
        raise UsageError(f"{option} takes a plain number, and '{text}' has a unit", f"write {value:g}")


def _parse(text: str, option: str, units: dict[str, float] | dict[str, int], examples: str) -> Bound:
    match = _NUMBER.fullmatch(text)
    if match:
        value, unit = float(match[1]), match[2].lower()
        if unit == "%" and 0 < value < 100:
            # Which of the two is meant is not guessed: the one is twice the other for "33%".
            raise UsageError(
                f"{option}: '{text}' may mean what is left or what goes",
                f"write {value / 100:g}x for {value:g} % of the unpruned network's, "
                f"or {1 - value / 100:g}x for {value:g} % less",
            )
        if (unit == "x" and value > 1) or (unit == "%" and value >= 100):
            times = value if unit == "x" else value / 100
            raise UsageError(
                f"{option}: '{text}' would allow more than the unpruned network has",
                f"{_spoken(times, option)} write {1 / times:.2g}x",
            )
        if value > 0 and unit == "x":
            return Bound(value, relative=True)
        if 0 < value * units.get(unit, 0) < math.inf:
            return Bound(value * units[unit])
    raise UsageError(f"{option}: '{text}' is not a bound", f"write it like {examples}")


def _spoken(times: float, option: str) -> str:
    """What somebody who asks for "2x" wants: `for twice as fast`."""
    if option != "--max-latency":
        return "for half of it" if times == 2 else f"for one part in {times:g}"
    return f"for {'twice' if times == 2 else f'{times:g} times'} as fast"


def format_cost(value: float, unit: Unit) -> str:
    """A latency for people: `0.000605` s -> `605 µs`. What was emulated or simulated says so and is not converted."""
    if unit == "instructions":
        return f"{format_millions(value)} M instructions (emulated)"
    note = " (simulated)" if unit == "simulated s" else ""
    return _scaled(value, ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))) + note


def format_millions(value: float) -> str:
    """Instructions in millions, three digits of small ones: `15_400_000` -> `15.400`, `60_312` -> `0.0603`."""
    return f"{value / 1e6:.3f}" if value >= 1e6 else format_figure(value / 1e6)


def format_figure(value: float) -> str:
    """Three digits that count, never an exponent: `0.0000123456` -> `0.0000123`, `1234.5` -> `1234`."""
    if abs(value) >= 999.5:
        return f"{value:.0f}"
    return f"{Decimal(f'{value:.3g}'):f}"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """In the first unit, smallest first, in which the *rounded* figure stays below 1000: 999.96 µs are 1 ms."""
    for scale, name in units:
        if abs(float(f"{value / scale:.3g}")) < 1000:
            return f"{format_figure(value / scale)} {name}"
    scale, name = units[-1]
    return f"{format_figure(value / scale)} {name}"


def format_speedup(value: float, unit: Unit) -> str:
    """How many times less a file costs: `1.40x faster`, `1.18x slower`. Fewer instructions are not called faster."""
    better, worse = {
        "s": ("faster", "slower"),
        "instructions": ("fewer instructions", "more instructions"),
        "simulated s": ("faster (simulated)", "slower (simulated)"),
    }[unit]
    return f"{value:.2f}x {better}" if value >= 1 else f"{1 / value:.2f}x {worse}"


def format_speedups(low: float, high: float) -> str:
    """The ends of a speed-up's interval in the terms of `format_speedup`: of one that is slower, by how much."""
    ends = (1 / high, 1 / low) if high < 1 else (low, high)
    return "{:.2f} to {:.2f}".format(*ends)


def format_bytes(value: float) -> str:
    """Bytes for people, decimal: `1234567` -> `1.23 MB`."""
    if value < 999.5:
        return f"{value:.0f} B"
    return _scaled(value, ((1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")))


def format_percent(share: float) -> str:
    """A share for people: `0.9834` -> `98.34 %`."""
    return f"{100 * share:.2f} %"


def format_share(share: float) -> str:
    """A share that stays honest at both ends: 97 %, 0.3 %, under 0.1 %, 99.6 %."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"

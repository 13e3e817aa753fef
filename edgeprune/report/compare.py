"""B beside A as a table, and what was decided, in words. Nothing is recomputed here."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.core.units import format_bytes, format_cost, format_millions

_SHOWN = {"better": "better", "same": "same", "worse": "WORSE", "open": "OPEN", "missing": "missing"}
_CONTROLS = {
    "copy": "a copy of {file}, raced along",
    "same": "A and B, which are the same file",
    "shared": "{file}, which was measured in both sessions",
}


def compare_table(found: Any) -> Table:
    """A row a figure of `edgeprune.profilers.compared.Compared`; changes in percent with their 95 % intervals."""
    where = f"{found.device.name}{what_kind_of(found)}"
    a, b = names_of(found)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(f"B = {b} beside A = {a} on {where}"),
        title_justify="left",
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column("", no_wrap=True)
    for column in ("A", "B", "change", "", "95 %, in %", "floor"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for each in found.figures:
        if each.verdict == "missing":
            table.add_row(each.figure, "-", "-", "", "", "", "", "missing")
            continue
        percent = "" if each.percent is None else f"{_percent(each.percent)} %"
        table.add_row(
            each.figure,
            *(amount(value, each.unit) for value in (each.a, each.b)),
            percent,
            signed(each.change, each.unit),
            _interval(each),
            "" if each.floor is None or not each.a else f"{100 * each.floor / abs(each.a):.1f} %",
            _SHOWN[each.verdict],
        )
    return table


def verdict_lines(found: Any) -> list[str]:
    """What was decided, a line for each figure that is worse, missing or cannot be told; then the answer."""
    lines = []
    for each in found.figures:
        name = each.figure
        if each.verdict == "missing":
            what = "which the gate says fails" if each.regression else "so it was not judged"
            lines.append(f"{name}: not measured in both, {what}")
        elif each.verdict == "worse":
            lines.append(f"{name}: worse by {_by(each)}, beyond {_limit(each)}")
        elif each.verdict == "open":
            lines.append(f"{name}: cannot be told, {_why_open(each)}; {_how(each, found.kind)}")
        elif each.floor is not None and each.floor > each.allowed > 0:
            lines.append(f"{name}: a change below {_limit(each)}, could not be seen; {_how(each, found.kind)}")
    if found.metric:
        lines.append(f"quality is {found.metric} on the test set, through the file on the device")
    if found.control is not None:
        a, _ = names_of(found)
        name = a if found.control.kind == "copy" else found.control.file
        lines.append(f"noise floor by {_CONTROLS[found.control.kind].format(file=name)}")
    if found.race is not None:
        told = f"this race: {found.race.verdict or 'not judged'}"
        lines.append(f"{told}; {found.race.advice}" if found.race.advice else told)
    lines += found.notes
    gate = found.gate.file or "the default gate"
    regressions = ", ".join(found.regressions)
    answers = {
        "regression": f"REGRESSION by {gate}: {regressions}",
        "open": f"no regression by {gate} was shown, and some of it cannot be told",
        "pass": f"no regression by {gate}",
    }
    return [*lines, answers[found.answer]]


def names_of(found: Any) -> tuple[str, str]:
    """What to call A and B: the end of each path, or the whole where these are equal."""
    ends = [str(side.given).rstrip("/").rpartition("/")[2] for side in (found.a, found.b)]
    alike = ends[0] == ends[1] and found.a.given != found.b.given
    return (found.a.given, found.b.given) if alike else (ends[0], ends[1])


def amount(value: float, unit: str) -> str:
    """A figure in its unit, short; that it is emulated or simulated stands above the table."""
    if unit == "share":
        return f"{100 * value:.2f} %"
    if unit == "B":
        return format_bytes(value)
    if unit == "instructions":
        return f"{format_millions(value)} M"
    return f"{value:.4g}" if unit == "metric" else format_cost(value, "s")


def signed(change: float, unit: str) -> str:
    """A change with its sign; of a share in points."""
    sign = "+" if change > 0 else "-" if change < 0 else ""
    if unit == "share":
        return f"{sign}{100 * abs(change):.2f} pt"
    return f"{sign}{amount(abs(change), unit)}"


def what_kind_of(found: Any) -> str:
    """ " (emulated)" or " (simulated)" behind the name of a device that is no real one."""
    return " (simulated)" if found.unit == "simulated s" else " (emulated)" if found.device.emulated else ""


def _interval(each: Any) -> str:
    if each.interval is None or not each.a:
        return ""
    low, high = (100 * end / abs(each.a) for end in (each.interval.low, each.interval.high))
    return "exact" if low == high else f"{_percent(low)} to {_percent(high)}"


def _percent(value: float) -> str:
    return f"{value:+.1f}" if abs(value) < 99.95 else f"{value:+.0f}"


def _by(each: Any) -> str:
    return signed(each.change, each.unit).lstrip("+-") + (
        f" ({abs(each.percent):.1f} %)" if each.percent is not None else ""
    )


def _limit(each: Any) -> str:
    share = f" ({100 * each.limit / abs(each.a):.1f} %)" if each.a else ""
    whose = "the noise floor" if each.floor is not None and each.limit == each.floor else "what the gate allows"
    return f"{whose}, {signed(each.limit, each.unit).lstrip('+')}{share}"


def _why_open(each: Any) -> str:
    if each.interval is None:
        return f"a single figure of each says nothing of noise, and they differ by {_by(each)}"
    return f"the interval holds {_limit(each)}"


def _how(each: Any, kind: str) -> str:
    if each.figure == "quality":
        return "more test examples would tell"
    if kind == "raced":
        return "raise --processes, or measure on a calmer device"
    return "race the files, or record more processes"

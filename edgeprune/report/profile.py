"""Tables of what `edgeprune profile` found out. Nothing is recomputed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.core.units import format_bytes, format_cost, format_figure, format_millions
from edgeprune.report.table import faster

#: An operator view shows so many of the dearest.
_OPERATORS = 15

Shown = Callable[[Any], str]

#: How a file was run that could not be run as others are; some microseconds of each run are that.
_BINDINGS = {
    "renewed": "outputs bound anew before each run (their shape changes or is not as declared); the figures count that",
    "none": "inputs and outputs handed over in each run (they cannot be bound); the figures count that",
}


#: Above the table, where a cell has no room for it: what figures are that are no times of a real device.
_TITLES = {"s": "latency on", "instructions": "instructions of an inference on", "simulated s": "made up latency on"}


def _cost(value: float | None, profile: Any) -> str:
    if value is None:
        return ""
    return f"{format_millions(value)} M" if profile.unit == "instructions" else format_cost(value, "s")


#: Columns, left out where no file has a figure for them. Profiles come as values: this room knows no other.
_COLUMNS: tuple[tuple[str, Shown], ...] = (
    ("median", lambda each: _cost(each.median, each)),
    ("p90", lambda each: _cost(each.p90, each)),
    ("p99", lambda each: _cost(each.p99, each)),
    ("load", lambda each: _cost(each.load_s, each)),
    ("first run", lambda each: _cost(each.first_s, each)),
    ("heap", lambda each: format_bytes(each.peak_bytes)),
    ("file", lambda each: format_bytes(each.bytes)),
    ("throughput", lambda each: f"{each.throughput.per_second:,.0f}/s" if each.throughput else ""),
)


def names_of(files: Sequence[Path]) -> dict[str, str]:
    """What to call each file: its name, or its whole path where another one has the same name."""
    return {
        str(file): file.name if len({f for f in files if f.name == file.name}) == 1 else str(file) for file in files
    }


def what_kind(profile: Any) -> str:
    """ " (emulated)" or " (simulated)" behind the name of a device that is no real one."""
    if profile.unit == "simulated s":
        return " (simulated)"
    return " (emulated)" if profile.facts.get("emulated") else ""


def profile_table(profiles: Sequence[Any], device: str, names: Mapping[str, str]) -> Table:
    """A row per file (`edgeprune.profilers.records.Profile`)."""
    title = f"{_TITLES[profiles[0].unit]} {device}{what_kind(profiles[0])}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", pad_edge=False)
    table.add_column("", overflow="fold", min_width=20)
    cells = [[shown(each) for _, shown in _COLUMNS] for each in profiles]
    used = [index for index in range(len(_COLUMNS)) if any(row[index] for row in cells)]
    for index in used:
        table.add_column(_COLUMNS[index][0], justify="right", no_wrap=True)
    for each, row in zip(profiles, cells, strict=True):
        table.add_row(escape(names[each.file]), *(row[index] or "-" for index in used))
    return table


def verdict_line(each: Any, name: str) -> str:
    """How far a profile or a comparison can be trusted, and why."""
    interval = getattr(each, "latency", None) or each.interval
    parts = [f"{name}: {each.verdict or 'not judged'}"]
    if interval is not None:
        parts.append(f"±{100 * interval.half_width:.1f} % by {interval.processes} processes")
    if each.rejected:
        parts.append(f"{each.rejected} disturbed ones measured again")
    if each.advice:
        parts.append(each.advice)
    return "; ".join(parts)


def fed_lines(each: Any, name: str, prefix: str) -> list[str]:
    """What of a profile depends on how the file was fed, a line each; `prefix` stands before names of inputs.

    Values of real numbers that were made up need no line: what they are hardly changes what a network costs.
    """
    lines = []
    for fed in each.inputs:
        if fed.how == "given" or fed.dtype.startswith(("float", "bfloat")):
            continue
        dtype = fed.dtype.rstrip("_")
        how = "FILE.npy" if fed.shape else "VALUE"
        sizes = f", {'x'.join(map(str, fed.shape))}" if fed.shape else ""
        lines.append(
            f"{name}: input {fed.name} ({dtype}{sizes}) made up as {fed.how}; give --input {prefix}{fed.name}={how}"
        )
    if len(each.signatures) > 1:
        others = ", ".join(signature for signature in each.signatures if signature != each.signature)
        measured = f"signature {each.signature}" if each.signature else "the first subgraph, which no signature names,"
        lines.append(f"{name}: {measured} was measured; --signature {prefix}NAME measures another: {others}")
    if each.external:
        inside = each.bytes - sum(part.bytes for part in each.external)
        parts = ", ".join(f"{part.location} ({format_bytes(part.bytes)})" for part in each.external)
        lines.append(f"{name}: its size counts {format_bytes(inside)} of its own and the weights in {parts}")
    if each.binding in _BINDINGS:
        lines.append(f"{name}: {_BINDINGS[each.binding]}")
    return lines


def comparison_lines(each: Any, names: Mapping[str, str]) -> list[str]:
    """A comparison in words: latency with its interval, memory, file."""
    interval = each.latency
    return [
        f"{names[each.file]} against {names[each.against]}:",
        f"  cost    {format_figure(interval.value)}x (95 %: {format_figure(interval.low)} to "
        f"{format_figure(interval.high)}), "
        + faster(1 / interval.value, 1 / interval.high, 1 / interval.low, each.unit),
        f"  heap    {format_figure(each.memory)}x",
        f"  file    {format_figure(each.bytes)}x",
        f"  {verdict_line(each, 'this race')}",
    ]


def operator_table(profile: Any, name: str) -> Table:
    """The dearest operators of a profile that has them, and what the others come to."""
    total = sum(each.seconds for each in profile.operators) or 1.0
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"operators of {name}"), title_justify="left", pad_edge=False)
    table.add_column("type")
    table.add_column("name", overflow="fold")
    for column in ("median", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    dearest = sorted(profile.operators, key=lambda each: -each.seconds)
    for each in dearest[:_OPERATORS]:
        table.add_row(each.type, each.name, format_cost(each.seconds, "s"), f"{100 * each.seconds / total:.1f} %")
    rest = sum(each.seconds for each in dearest[_OPERATORS:])
    if rest:
        name = f"{len(dearest) - _OPERATORS} more"
        table.add_row("", name, format_cost(rest, "s"), f"{100 * rest / total:.1f} %")
    return table

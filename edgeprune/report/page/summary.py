"""The first screen of a network: its verdict, and what came out, in sentences that need no manual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.kinds import Unit
from edgeprune.core.units import format_bytes, format_cost, format_speedup, format_speedups
from edgeprune.report.checks import told_checks
from edgeprune.report.page.views import Pill, Table, Tile, pill
from edgeprune.report.table import Result, device_title, faster, file_title, judged
from edgeprune.tasks.metrics import Metric, metric_named

#: What a cost is called.
COST: Mapping[Unit, str] = {"s": "latency", "instructions": "instructions", "simulated s": "simulated latency"}


@dataclass(frozen=True, slots=True)
class Quality:
    """Test figures before and after, each with the ends of its 95 % interval, and what was lost."""

    before: float
    before_ends: tuple[float, float]
    after: float
    #: None where an earlier version has not kept it.
    after_ends: tuple[float, float] | None
    lost: float


def quality(result: Result) -> Quality:
    """By the run's metric: what the judged file answers. Of 32-bit floats that is what the network on the host does."""
    metric, file = metric_named(result["metric"]), judged(result)
    before, after = result["baseline"], result["compressed"]
    ends = _ends(before["interval"])
    if file["precision"] == "fp32":
        values = before["scores"][metric.name], after["scores"][metric.name]
        return Quality(values[0], ends, values[1], _ends(after["interval"]), after["lost"])
    old, new = (file[side][metric.name] for side in ("baseline_device_scores", "device_scores"))
    own = file["device_interval"]
    return Quality(old, ends, new, None if own is None else _ends(own), metric.lost(old, new))


def _ends(interval: Sequence[float]) -> tuple[float, float]:
    return interval[0], interval[1]


def shown_ends(metric: Metric, ends: tuple[float, float] | None) -> str:
    """` (95 %: 94.25 % to 98.08 %)`, or nothing."""
    return "" if ends is None else f" (95 %: {metric.show(ends[0])} to {metric.show(ends[1])})"


def verdict(result: Result) -> Pill:
    """The outcome in a word: that of its bounds, or `worse`."""
    return Pill("worse", "bad") if result["status"] == "worse" else pill(result["budget"]["answer"])


def sentences(result: Result) -> tuple[str, ...]:
    """Whether the budget is kept; what became faster and smaller; what that cost in quality."""
    return (_outcome(result), _gain(result), _quality(result))


def _outcome(result: Result) -> str:
    budget = result["budget"]
    if budget["answer"] == "not met":
        missed = [f"{each.asked}, got {each.found}" for each in told_checks(result) if each.answer == "not met"]
        return f"The budget was missed: {'; '.join(missed)}. What follows is the nearest network that was found."
    if result["status"] == "worse":
        return "Every bound is kept, but by a file that is slower and larger than the unpruned one: do not use it."
    if budget["answer"] == "open":
        return "No bound is missed, but latency cannot be told apart from its bound: the interval holds it."
    if not budget["recommended"]:
        return "Every bound is met, but the file is not better than the unpruned one in every figure."
    return "Every bound is met, and the file is better than the unpruned one in latency and size, in no more memory."


def _gain(result: Result) -> str:
    file = judged(result)
    speed, unit = file["speedup"], file["latency"]["unit"]
    low, high = speed["ci_low"], speed["ci_high"]
    gain = f"no difference in {COST[unit]} was shown" if low <= 1 <= high else format_speedup(speed["value"], unit)
    where = device_title(result["device"])
    return (
        f"The {file_title(file)} file on {where}: {gain} (95 %: {format_speedups(low, high)} times), "
        f"{format_cost(file['latency']['median'], unit)} for one inference in place of "
        f"{format_cost(file['baseline_latency']['median'], unit)}; it has {format_bytes(file['bytes'])} in place of "
        f"{format_bytes(file['baseline_bytes'])}."
    )


def _quality(result: Result) -> str:
    metric, found = metric_named(result["metric"]), quality(result)
    change = f"{abs(found.lost):.2f} {metric.unit}"
    if metric.share:
        how = f"{change} {'lost' if found.lost > 0 else 'gained'}" if found.lost else "nothing lost"
    else:
        how = f"{change} {'more' if found.lost > 0 else 'less'}" if found.lost else "no change"
    title = metric.title[:1].upper() + metric.title[1:]
    after = metric.show(found.after) + shown_ends(metric, found.after_ends)
    return f"{title} on {result['data']['test']:,} test examples: {after}; unpruned {metric.show(found.before)}: {how}."


def tiles(result: Result) -> tuple[Tile, ...]:
    """The figures that count."""
    metric, found, file = metric_named(result["metric"]), quality(result), judged(result)
    speed, unit, after = file["speedup"], file["latency"]["unit"], result["compressed"]
    shown = not speed["ci_low"] <= 1 <= speed["ci_high"]
    return (
        Tile(f"test {metric.title}", metric.show(found.after), f"unpruned {metric.show(found.before)}"),
        Tile(
            COST[unit],
            faster(speed["value"], speed["ci_low"], speed["ci_high"], unit),
            f"95 %: {format_speedups(speed['ci_low'], speed['ci_high'])} times",
            "plain" if not shown else "good" if speed["value"] > 1 else "bad",
        ),
        Tile("file", _left(file["bytes"], file["baseline_bytes"]), _sizes(file["baseline_bytes"], file["bytes"])),
        Tile(
            "heap",
            _left(file["peak_bytes"], file["baseline_peak_bytes"]),
            _sizes(file["baseline_peak_bytes"], file["peak_bytes"]),
        ),
        Tile("neurons", f"NCR {after['ncr']:.2f}", f"{result['baseline']['neurons']:,} → {after['neurons']:,}"),
    )


def _left(new: float, old: float) -> str:
    return f"{100 * new / max(old, 1):.1f} % left"


def _sizes(old: float, new: float) -> str:
    return f"{format_bytes(old)} → {format_bytes(new)}"


def check_table(result: Result) -> Table:
    """Every bound with its answer."""
    rows = tuple((each.asked, each.found, pill(each.answer)) for each in told_checks(result))
    return Table("What was asked", ("bound", "found", "answer"), rows, words=(1, 2), stacked=True)


def figure_table(result: Result) -> Table:
    """Before and after, with 95 % intervals, and how far each measurement is to be trusted."""
    before, after, metric = result["baseline"], result["compressed"], metric_named(result["metric"])
    rows: list[tuple[str | Pill, ...]] = []
    for name in before["scores"]:
        each = metric_named(name)
        old, new = before["scores"][name], after["scores"][name]
        change = 100 * (new - old) if each.share else each.lost(old, new)
        ends = [f" ({each.show(side['interval'][0])} to {each.show(side['interval'][1])})" for side in (before, after)]
        judging = name == metric.name
        rows.append((
            f"test {each.title}, host",
            each.show(old) + (ends[0] if judging else ""),
            each.show(new) + (ends[1] if judging else ""),
            f"{change:+.2f} {each.unit}",
            "",
        ))  # fmt: skip
    for name, key in (("neurons", "neurons"), ("parameters", "parameters"), ("MACs", "macs")):
        rows.append((name, f"{before[key]:,}", f"{after[key]:,}", f"{100 * after[key] / before[key]:.1f} % left", ""))
    for item in result["artifacts"]:
        rows += _file_rows(item)
    head = ("figure (95 % interval)", "unpruned", "pruned", "change", "verdict")
    return Table("Before and after", head, tuple(rows), words=(4,), stacked=True)


def _file_rows(item: Mapping[str, Any]) -> list[tuple[str | Pill, ...]]:
    title = file_title(item)
    if not item["validated"]:
        return [(title, "", "", "not validated" if item["exported"] else "not exported", item["why_not"])]
    ours, theirs, speed = item["latency"], item["baseline_latency"], item["speedup"]
    unit = ours["unit"]
    trusted = item["verdict"] or "not judged"
    change = faster(speed["value"], speed["ci_low"], speed["ci_high"], unit)
    rows: list[tuple[str | Pill, ...]] = [(
        f"{title}: {COST[unit]}, median",
        format_cost(theirs["median"], unit),
        format_cost(ours["median"], unit),
        f"{change} ({format_speedups(speed['ci_low'], speed['ci_high'])})",
        Pill(trusted, "good" if trusted == "stable" else "open"),
    )]  # fmt: skip
    for name, new, old in (
        ("heap", item["peak_bytes"], item["baseline_peak_bytes"]),
        ("file", item["bytes"], item["baseline_bytes"]),
    ):
        change = f"{100 * new / max(old, 1):.1f} % left"
        rows.append((f"{title}: {name}", format_bytes(old), format_bytes(new), change, ""))
    return rows

"""A front as a table: several bounds side by side, every figure from `front.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.core.units import format_bytes, format_cost, format_figure
from edgeprune.report.checks import ANSWERS
from edgeprune.report.table import device_title
from edgeprune.tasks.metrics import metric_named

Front = Mapping[str, Any]
#: Of each option: what it bounds, and where a trial has that.
BOUNDED = {
    "max_latency": ("latency", "latency_share"),
    "max_memory": ("heap", "memory_share"),
    "max_bytes": ("file", "bytes_share"),
    "expect_ncr": ("NCR", "ncr"),
}


def front_table(front: Front) -> Table:
    """A row a bound, the loosest first; costs as shares of the unpruned network's (`unpruned_line`)."""
    metric = metric_named(front["metric"])
    where = device_title(front["device"])
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(f"{front['model']} on {front['data']}, {where}"),
        title_justify="left",
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for column in ("bound", ""):
        table.add_column(column, no_wrap=True)
    lost = "lost" if metric.share else "grown, %"
    for column in (metric.name, lost, "latency", "", "heap", "file", "NCR"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in front["points"]:
        if point["status"] == "impossible":
            table.add_row(escape(point["asked"]), ANSWERS[point["answer"]], "none")
            continue
        latency = point["latency_share"]
        table.add_row(
            escape(point["asked"]),
            ANSWERS[point["answer"]],
            metric.show(point["quality"]["value"]),
            f"{point['drop']:.2f}",
            f"{format_figure(latency['value'])}x",
            f"{format_figure(latency['low'])} to {format_figure(latency['high'])}",
            *(f"{format_figure(point[key])}x" for key in ("memory_share", "bytes_share")),
            f"{point['ncr']:.2f}",
        )
    return table


def unpruned_line(front: Front) -> str:
    """What the shares are of."""
    unpruned, metric = front["unpruned"], metric_named(front["metric"])
    return (
        f"unpruned: {metric.show(unpruned['quality']['value'])} on test, "
        f"{format_cost(unpruned['latency'], front['device']['unit'])}, {format_bytes(unpruned['peak_bytes'])} heap, "
        f"{format_bytes(unpruned['bytes'])} file; costs are shares of it, latency with its 95 % interval"
    )


def front_lines(front: Front) -> list[str]:
    """Of every bound what it misses, what speaks against its file, or why no network can keep it."""
    lines = []
    for point in front["points"]:
        asked = point["asked"]
        if point["status"] == "impossible":
            lines.append(f"NOT MET  {asked}: {point['error']}")
            continue
        missed = ", ".join("--" + bound.replace("_", "-") for bound in point["missed"])
        if missed:
            lines.append(f"NOT MET  {asked}: misses {missed}; the nearest network is kept")
        elif point["answer"] == "open":
            lines.append(f"OPEN     {asked}: latency cannot be told apart from the bound")
        if not missed and not point["recommended"]:
            where = f"{point['path']}/result.json"
            lines.append(f"BUT      {asked}: {point['file']} is not better in every figure: see {where}")
    return lines

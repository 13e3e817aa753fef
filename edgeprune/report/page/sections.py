"""The whole page, put together of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeprune.core.units import format_bytes, format_cost, format_figure, format_speedups
from edgeprune.core.version import VERSION
from edgeprune.report.front import front_lines, unpruned_line
from edgeprune.report.page.bars import class_bars, operator_bars, width_bars
from edgeprune.report.page.cards import backend_table, commands, device_card, device_note, hashes, setting_table
from edgeprune.report.page.course import loss_charts, reward_chart
from edgeprune.report.page.finished import FrontRun, Network, Run
from edgeprune.report.page.spread import lanes
from edgeprune.report.page.summary import check_table, figure_table, quality, sentences, shown_ends, tiles, verdict
from edgeprune.report.page.trials import front_chart, trial_chart
from edgeprune.report.page.views import Cell, FrontPart, Page, Part, Pill, Table, pill
from edgeprune.report.table import (
    Result,
    device_title,
    drawback_lines,
    faster,
    file_title,
    input_line,
    judged,
    next_step,
    staying_lines,
)
from edgeprune.tasks.metrics import metric_named


def page_of(runs: Sequence[Run]) -> Page:
    """The page of some runs, in their order."""
    parts = tuple(
        _front_part(run, f"r{place}") if isinstance(run, FrontRun) else _part(run, f"r{place}")
        for place, run in enumerate(runs)
    )
    networks = [net for run in runs for net in (run.networks if isinstance(run, FrontRun) else (run,))]
    title = ", ".join(run.name for run in runs)
    beside = _beside(networks) if len(runs) > 1 else None
    return Page(f"edgeprune: {title}", VERSION, parts, beside, _unlike(networks) if beside else ())


def _part(run: Network, id: str, bound: str = "") -> Part:
    result = run.result
    charts = [trial_chart(run, f"{id}-trials"), reward_chart(run.trials, f"{id}-reward")]
    where = f"{result['config']['model']} on {result['config']['data']}, {device_title(result['device'])}"
    return Part(
        id=id,
        name=run.name,
        title=f"{bound}: {where}" if bound else where,
        verdict=verdict(result),
        sentences=sentences(result),
        tiles=tiles(result),
        drawbacks=tuple(line.removeprefix("BUT").strip() for line in drawback_lines(result)),
        next_step=next_step(result, run.folder).removeprefix("next: "),
        checks=check_table(result),
        figures=figure_table(result),
        widths=width_bars(result),
        staying=(*staying_lines(result), input_line(result)),
        lanes=lanes(run),
        charts=(*(chart for chart in charts if chart is not None), *loss_charts(result, f"{id}-loss")),
        classes=class_bars(result),
        operators=operator_bars(result),
        device=device_card(result),
        backends=backend_table(result),
        device_note=device_note(result),
        commands=commands(run),
        hashes=hashes(result),
        settings=setting_table(result),
    )


def _front_part(run: FrontRun, id: str) -> FrontPart:
    front = run.front
    reached = [point for point in front["points"] if point["status"] != "impossible"]
    parts = tuple(
        _part(network, f"{id}-{place}", f"Bound {point['asked']}")
        for place, (point, network) in enumerate(zip(reached, run.networks, strict=True))
    )
    charts = [front_chart(run, f"{id}-trials"), reward_chart(run.trials, f"{id}-reward", run.searches)]
    return FrontPart(
        id=id,
        name=run.name,
        title=f"{front['model']} on {front['data']}, {device_title(front['device'])}",
        verdict=_together(front),
        sentences=_front_sentences(front),
        table=_front_table(front),
        lines=tuple(" ".join(line.split()) for line in front_lines(front)),
        charts=tuple(chart for chart in charts if chart is not None),
        commands=commands(run),
        parts=parts,
    )


def _together(front: Any) -> Pill:
    if front["status"] == "worse":
        return Pill("worse", "bad")
    answers = {point["answer"] for point in front["points"]}
    return pill("not met" if "not met" in answers else "open" if "open" in answers else "met")


def _front_sentences(front: Any) -> tuple[str, ...]:
    points = front["points"]
    parts = [f"{len(points)} bounds on one search"]
    for answer, word in (("met", "met"), ("open", "open"), ("not met", "missed")):
        if of := [point["asked"] for point in points if point["answer"] == answer]:
            parts.append(f"{word}: {', '.join(of)}")
    first = "; ".join(parts) + "."
    line = unpruned_line(front)
    return first, f"{line[:1].upper()}{line[1:]}."


def _front_table(front: Any) -> Table:
    metric = metric_named(front["metric"])
    lost = "lost" if metric.share else "grown, %"
    head = ("bound", "answer", metric.title, lost, "latency (95 %)", "heap", "file", "NCR")
    rows: list[tuple[Cell, ...]] = []
    for point in front["points"]:
        answer = pill(point["answer"])
        if point["status"] == "impossible":
            rows.append((point["asked"], answer, "none", "", "", "", "", ""))
            continue
        share = point["latency_share"]
        value, low, high = (format_figure(share[key]) for key in ("value", "low", "high"))
        memory, file = (f"{format_figure(point[key])}x" for key in ("memory_share", "bytes_share"))
        rows.append((
            point["asked"], answer, metric.show(point["quality"]["value"]), f"{point['drop']:.2f}",
            f"{value}x ({low} to {high})", memory, file, f"{point['ncr']:.2f}",
        ))  # fmt: skip
    return Table("Each bound, as shares of the unpruned network", head, tuple(rows), words=(1,), stacked=True)


def _beside(networks: Sequence[Network]) -> Table:
    """A column a network."""
    columns = [_column(run) for run in networks]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    head = ("figure", *(run.name for run in networks))
    return Table("Side by side", head, rows, words=tuple(range(1, len(head))), stacked=True)


def _column(run: Network) -> dict[str, Cell]:
    result = run.result
    file, found, metric = judged(result), quality(result), metric_named(result["metric"])
    speed, unit = file["speedup"], file["latency"]["unit"]
    change = faster(speed["value"], speed["ci_low"], speed["ci_high"], unit)
    return {
        "answer": verdict(result),
        "model": result["config"]["model"],
        "data": result["config"]["data"],
        "device": device_title(result["device"]),
        "file": f"{file_title(file)}, {file['runtime']}",
        "quality": f"{metric.title} {metric.show(found.after)}{shown_ends(metric, found.after_ends)}",
        "lost": f"{found.lost:.2f} {metric.unit}",
        "cost of one inference": format_cost(file["latency"]["median"], unit),
        "beside the unpruned file": f"{change} (95 %: {format_speedups(speed['ci_low'], speed['ci_high'])})",
        "measurement": file["verdict"] or "not judged",
        "heap": format_bytes(file["peak_bytes"]),
        "file size": format_bytes(file["bytes"]),
        "NCR": f"{result['compressed']['ncr']:.2f}",
    }


def _unlike(networks: Sequence[Network]) -> tuple[str, ...]:
    """What was not the same in all runs, so that figures of the one say nothing beside those of the other."""
    notes = []
    differing: tuple[tuple[str, Callable[[Result], Any]], ...] = (
        ("devices: do not compare their latencies and heaps", lambda r: r["device"]["name"]),
        ("units of cost: none is converted into another", lambda r: r["device"]["unit"]),
        ("runtimes: do not compare their latencies and heaps", lambda r: judged(r)["runtime"]),
        ("numbers of threads: do not compare their latencies", lambda r: judged(r)["settings"]["threads"]),
        ("data: do not compare their quality", lambda r: r["data"]["fingerprint"]),
        ("metrics: do not compare their quality", lambda r: r["metric"]),
    )
    for what, of in differing:
        if len({str(of(network.result)) for network in networks}) > 1:
            notes.append(f"These runs have different {what}.")
    return tuple(notes)

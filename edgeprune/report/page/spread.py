"""How the latencies of the files are spread, all on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from edgeprune.core.kinds import Unit
from edgeprune.core.units import format_cost
from edgeprune.report.page.finished import Network
from edgeprune.report.page.summary import COST
from edgeprune.report.page.views import Lane, Lanes, Spike, Table
from edgeprune.report.table import file_title

_BINS = 120
_Side = Literal["unpruned", "pruned"]
_SIDES: tuple[_Side, ...] = ("unpruned", "pruned")


def lanes(run: Network) -> Lanes | None:
    """A histogram a file, the unpruned one above the pruned one; None where no file was measured.

    Samples over three medians of their file, moments in which something else ran, are told in words: they would press
    all others against the left edge.
    """
    files = [item for item in run.result["artifacts"] if item["validated"]]
    if not files:
        return None
    unit: Unit = files[0]["latency"]["unit"]
    sides = [(item, side) for item in files for side in _SIDES]
    end = 1.04 * max(_end(_samples(item, side)) for item, side in sides)
    drawn, rows = [], []
    for item, side in sides:
        p90 = run.tails[item["path"]][side == "unpruned"]
        drawn.append(_lane(item, side, p90, end, unit))
        samples = _samples(item, side)
        rows.append((
            drawn[-1].name, format_cost(float(np.median(samples)), unit), "" if p90 is None else format_cost(p90, unit),
            format_cost(min(samples), unit), format_cost(max(samples), unit), str(len(samples)),
        ))  # fmt: skip
    head = ("file", "p50", "p90", "least", "most", "samples")
    told = "; ".join(f"{row[0]} p50 {row[1]}" + (f", p90 {row[2]}" if row[2] else "") for row in rows)
    notes = ["A sample is a round of inferences; rounds of the unpruned and the pruned file took turns."]
    if unit == "instructions":
        notes = ["Instructions of an emulated processor, counted: they are not converted to time."]
    if any(not row[2] for row in rows):
        notes.append("p90 is told where at least ten samples lie beyond it.")
    return Lanes(
        title=f"{COST[unit].capitalize()} of one inference, all files on one axis",
        alt=f"{COST[unit].capitalize()} of one inference: {told}.",
        ticks=_ticks(end, unit),
        lanes=tuple(drawn),
        notes=tuple(notes),
        table=Table(f"{COST[unit].capitalize()} of one inference", head, tuple(rows)),
    )


def _samples(item: Mapping[str, Any], side: _Side) -> Sequence[float]:
    found: Sequence[float] = item["latency" if side == "pruned" else "baseline_latency"]["samples"]
    return found


def _end(samples: Sequence[float]) -> float:
    """The largest sample that is drawn."""
    most = 3 * float(np.median(samples))
    return max(each for each in samples if each <= most)


def _lane(item: Mapping[str, Any], side: _Side, p90: float | None, end: float, unit: Unit) -> Lane:
    samples = np.asarray(_samples(item, side), float)
    counts, _ = np.histogram(samples, bins=_BINS, range=(0, end))
    width = 100 / _BINS
    spikes = tuple(
        Spike(round(place * width, 3), round(width, 3), round(100 * count / counts.max(), 2))
        for place, count in enumerate(counts)
        if count
    )
    beyond = int((samples > end).sum())
    p50 = float(np.median(samples))
    told = f"p50 {format_cost(p50, unit)}" + (f", p90 {format_cost(p90, unit)}" if p90 is not None else "")
    if beyond:
        told += f"; {beyond} slower, not drawn, up to {format_cost(float(samples.max()), unit)}"
    return Lane(
        name=f"{file_title(item)}, {side}",
        of=side,
        spikes=spikes,
        p50=round(100 * p50 / end, 3),
        p90=None if p90 is None or p90 > end else round(100 * p90 / end, 3),
        told=told,
    )


def _ticks(end: float, unit: Unit) -> tuple[tuple[float, str], ...]:
    """Round figures from 0 on, four at most, so that their texts have room on a phone."""
    step = 10 ** math.floor(math.log10(end / 2))
    step *= next(times for times in (1, 2, 5, 10, 20) if end / (times * step) < 4)
    return tuple(
        (round(100 * place * step / end, 3), "0" if place == 0 else format_cost(place * step, unit))
        for place in range(int(end / step) + 1)
    )

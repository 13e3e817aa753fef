"""The tables of `bench conv`: for the terminal, for a README (Markdown), for a spreadsheet (CSV).

What is missing is shown as "–" (in CSV as an empty field), never as 0.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypeVar

from rich.table import Table

from edgeprune.papers.conv.records import (
    METHODS,
    OURS,
    Cell,
    Comparison,
    ConvBench,
    Finished,
    Standing,
    compare,
    standings,
)
from edgeprune.papers.statistics import Range
from edgeprune.papers.table import MISSING, Row, markdown_table, rich_table

_T = TypeVar("_T")
#: Column heads; lines are the terminal's.
_HEADS = ("bound", "method", "lost\npoints", "each seed", "score\n%", "latency\nx", "MACs\n%", "host\ns", "device\ns")
_PAIRS = ("edgeprune\nminus", "lost\npoints", "95 % interval", "pairs", "score\npoints", "95 % interval", "pairs")


def conv_tables(bench: ConvBench) -> list[Table]:
    """Per network what every method came to, and the paired differences; then what it comes to in all."""
    tables = []
    for network in _networks(bench):
        tables.append(rich_table(network, _HEADS, _rows(bench, network), _notes(bench, network), left=(0, 1, 3)))
        tables.append(rich_table(f"{network}: paired by seed and bound", _PAIRS, _pair_rows(bench, network), []))
    tables.append(rich_table("all networks", _PAIRS, _pair_rows(bench, None), _summary(bench)))
    return tables


def conv_markdown(bench: ConvBench) -> str:
    """The same tables and notes as `conv_tables`."""
    texts = []
    for network in _networks(bench):
        texts.append(f"### {network}\n")
        texts.append(markdown_table(_HEADS, _rows(bench, network), _notes(bench, network), left=(0, 1, 3)))
        texts.append(markdown_table(_PAIRS, _pair_rows(bench, network), ["Paired by seed and bound."]))
    texts.append("### All networks\n")
    texts.append(markdown_table(_PAIRS, _pair_rows(bench, None), _summary(bench)))
    return "\n".join(texts)


def conv_csv(bench: ConvBench) -> str:
    """A row per cell, figures unrounded."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(
        (
            "network", "bound", "method", "seed", "points_lost", "accuracy", "baseline_accuracy", "score", "latency",
            "latency_low", "latency_high", "answer", "macs_share", "evaluations", "host_s", "device_s", "agent_s",
            "finishing_s", "plan", "widths",
        )
    )  # fmt: skip
    for network in bench.networks:
        for cell in bench.cells:
            if cell.network != network:
                continue
            end = bench.end(cell)
            finished: list[object] = [None] * 9
            if end is not None:
                latency = end.latency
                finished = [end.lost, end.accuracy, end.baseline_accuracy, latency.value, latency.low, latency.high,
                            end.answer(cell.bound), end.macs_share, end.seconds]  # fmt: skip
            spent = cell.seconds
            widths = "-".join(map(str, cell.widths.values()))
            rows.writerow(
                [cell.network, cell.bound, cell.method, cell.seed, *finished[:3], cell.score, *finished[3:8],
                 cell.evaluations, spent.host, spent.device, spent.agent, finished[8], cell.key, widths]
            )  # fmt: skip
    return stream.getvalue()


def _networks(bench: ConvBench) -> list[str]:
    return list(dict.fromkeys(network for network, _ in bench.places()))


def _rows(bench: ConvBench, network: str) -> list[Row]:
    rows = []
    for place, bound in bench.places():
        if place != network:
            continue
        first = f"{bound:g}x"
        for method in METHODS:
            cells = list(bench.of(network, bound, method).values())
            if not cells:
                continue
            ends = list(bench.ends(network, bound, method).values())
            searched = [cell for cell in cells if cell.evaluations]
            rows.append(
                Row(
                    (
                        first,
                        method,
                        _mean(ends, lambda end: end.lost, 2),
                        ", ".join(f"{_zero(end.lost):.2f}" for end in ends) if len(ends) > 1 else "",
                        _mean([cell for cell in cells if cell.score is not None], _score, 2),
                        _mean(ends, lambda end: end.latency.value, 3) + _mark(ends, bound),
                        _mean(ends, lambda end: 100 * end.macs_share, 0),
                        _mean(searched, lambda cell: cell.seconds.host, 0),
                        _mean(searched, lambda cell: cell.seconds.device, 0),
                    )
                )
            )
            first = ""
    return rows


def _score(cell: Cell) -> float:
    return 100 * (cell.score or 0.0)


def _mark(ends: Sequence[Finished], bound: float) -> str:
    answers = {end.answer(bound) for end in ends}
    return "*" if "not met" in answers else "~" if "open" in answers else ""


def _notes(bench: ConvBench, network: str) -> list[str]:
    own = bench.networks[network]
    cells = [cell for cell in bench.cells if cell.network == network]
    seeds = len({cell.seed for cell in cells})
    unpruned = f"from {own.weights}" if own.weights else f"{own.train_epochs} epochs"
    lines = [
        f"{own.images:,} training images; unpruned network {unpruned}, fine-tuning {own.finetune_epochs}, from scratch "
        f"{own.train_epochs} + {own.finetune_epochs}; {own.episodes} candidates a search, tuned for {own.search_steps} "
        f"steps; {seeds} seed{'s' if seeds > 1 else ''}. Lost: test accuracy against the unpruned network's; score: "
        "validation accuracy of the chosen plan before fine-tuning; host and device: the search's seconds.",
        f"Made on {' and '.join(dict.fromkeys(cell.machine for cell in cells))}, measured on {bench.device}.",
    ]
    marks = {
        _mark(list(bench.ends(network, bound, method).values()), bound)
        for place, bound in bench.places()
        for method in METHODS
        if place == network
    }
    if "*" in marks:
        lines.append("* a file that breaks the bound in the race at the end; it is not compared.")
    if "~" in marks:
        lines.append("~ a file that cannot be told apart from the bound in the race at the end.")
    return lines


def _pair_rows(bench: ConvBench, network: str | None) -> list[Row]:
    return [Row(_pair_cells(each)) for each in compare(bench, network)]


def _pair_cells(each: Comparison) -> tuple[str, ...]:
    return (
        each.method,
        *_range(each.lost),
        str(each.lost_pairs or MISSING),
        *_range(each.score),
        str(each.score_pairs or MISSING),
    )


def _range(found: Range | None) -> tuple[str, str]:
    if found is None:
        return MISSING, MISSING
    interval = MISSING
    if found.interval is not None:
        interval = f"{_zero(found.interval[0]):+.2f} to {_zero(found.interval[1]):+.2f}"
    return f"{_zero(found.value):+.2f}", interval


def _summary(bench: ConvBench) -> list[str]:
    """In how many cells (a network at a bound) `edgeprune` is best or near it, and ahead of each other method."""
    found = standings(bench)
    if not found:
        return ["No cell has both edgeprune and another method finished yet."]
    held = [standing for standing in found if standing.holds]
    lines = [
        f"{OURS} is best, or within the 95 % interval of the best (by test images), in {len(held)} of {len(found)} "
        "cells."
    ]
    lines += [_behind(standing) for standing in found if not standing.holds]
    for method in METHODS[1:]:
        differences = [standing.others[method] for standing in found if method in standing.others]
        if differences:
            better = sum(difference < 0 for difference in differences)
            equal = sum(difference == 0 for difference in differences)
            told = f"loses less than {method} in {better} of {len(differences)} cells"
            lines.append(told + (f", and as much in {equal}" if equal else "") + ".")
    return lines


def _behind(standing: Standing) -> str:
    where = f"on {standing.network} at {standing.bound:g}x"
    if not standing.kept:
        return f"It breaks the bound {where}."
    value, interval = _range(standing.difference)
    return f"Behind {standing.rival} {where}: {value} points ({interval})."


def _mean(values: Sequence[_T], figure: Callable[[_T], float], digits: int) -> str:
    return f"{_zero(fmean(map(figure, values)), digits):.{digits}f}" if values else MISSING


def _zero(value: float, digits: int = 2) -> float:
    """`value` rounded, and never -0.0."""
    return round(value, digits) + 0.0

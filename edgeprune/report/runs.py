"""The runs of a folder as a table, every figure from what `runs list --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

from rich.markup import escape
from rich.table import Table

from edgeprune.core.text import printable
from edgeprune.core.units import format_figure
from edgeprune.report.checks import ANSWERS
from edgeprune.tasks.metrics import metric_named

Run = Mapping[str, Any]


def runs_table(runs: Sequence[Run], now: datetime) -> Table:
    """A row a run; of a front one more for each bound."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("run", "when", "model", "data", "device", "state", "latency", "quality"):
        figure = column in ("latency", "quality")
        table.add_column(
            column, justify="right" if figure else "left", overflow="fold", no_wrap=figure or column == "when"
        )
    for run in runs:
        outcomes = run["outcomes"]
        single = outcomes[0] if len(outcomes) == 1 and not outcomes[0]["bound"] else None
        table.add_row(
            _cell(run["name"]),
            _when(run["when"], now),
            _cell(_short(run["model"])),
            _cell(_short(run["data"])),
            _cell(_short(run["device"])),
            _state(run, single),
            *(_figures(single, run["metric"]) if single else ("", "")),
        )
        for outcome in () if single else outcomes:
            figures = _figures(outcome, run["metric"])
            table.add_row(f"  {_cell(outcome['bound'])}", "", "", "", "", ANSWERS[outcome["answer"]], *figures)
    return table


def outcome_lines(run: Run) -> list[str]:
    """What came of a run, a line each; of a front one a bound."""
    lines = []
    for outcome in run["outcomes"]:
        asked = f"{outcome['bound']}: " if outcome["bound"] else ""
        latency, quality = _figures(outcome, run["metric"])
        told = f"latency {latency}, {run['metric']} {quality}, {outcome['file']}" if quality else "no network keeps it"
        lines.append(f"{ANSWERS[outcome['answer']]:8} {asked}{told}")
    return lines


def _cell(text: str) -> str:
    """What a file said must not steer the terminal."""
    return escape(printable(text))


def _short(text: str) -> str:
    """The last part of a path: a table has no room for the others."""
    return text if "://" in text else PurePath(text).name or text


def _when(text: str, now: datetime) -> str:
    when = datetime.fromisoformat(text)
    return f"{when:%m-%d %H:%M}" if when.year == now.year else f"{when:%Y-%m-%d}"


def _state(run: Run, single: Mapping[str, Any] | None) -> str:
    if single is None or run["state"] not in ("done", "budget-not-met", "worse"):
        return str(run["state"])
    return "worse" if run["state"] == "worse" else ANSWERS[single["answer"]]


def _figures(outcome: Mapping[str, Any], metric: str) -> tuple[str, str]:
    if outcome["file"] is None:
        return "none", ""
    return f"{format_figure(outcome['latency_share'])}x", metric_named(metric).show(outcome["quality"])

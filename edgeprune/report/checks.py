"""Bounds: what was asked, what there is, and the words for whether that is met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.core.budget import Answer
from edgeprune.core.units import format_bytes, format_cost, format_figure
from edgeprune.tasks.metrics import metric_named

ANSWERS: Mapping[Answer, str] = {"met": "met", "not met": "NOT MET", "open": "OPEN"}
#: What is said of a figure that is open.
_OPEN = "cannot be told apart from the bound"


@dataclass(frozen=True, slots=True)
class ToldCheck:
    """A bound in words: `latency at most 0.6x (default)`, `0.55x (0.54 to 0.56)`."""

    answer: Answer
    asked: str
    found: str


def told_checks(result: Mapping[str, Any]) -> list[ToldCheck]:
    """Every bound of a run, from its `result.json`."""
    told = []
    metric = metric_named(result["metric"])
    names = {"max_latency": "latency at most", "max_memory": "heap at most", "max_bytes": "file at most",
             "max_drop": "points lost at most" if metric.share else f"{metric.title} grown at most by",
             "expect_ncr": "NCR at least",
             "above_chance": f"{metric.title} {'above' if metric.share else 'below'} what guessing gets,"}  # fmt: skip
    for check in result["budget"]["checks"]:
        unit = check["unit"]
        limit, value = (_show(check[key], unit) for key in ("limit", "value"))
        default = " (default)" if check["default"] else ""
        if interval := check.get("interval"):
            value += " ({} to {})".format(*(_show(end, unit) for end in interval))
        if check["answer"] == "open":
            value += f": {_OPEN}"
        told.append(ToldCheck(check["answer"], f"{names[check['bound']]} {limit}{default}", value))
    return told


def budget_lines(result: Mapping[str, Any]) -> list[str]:
    """One line a bound: what was asked, what there is, whether it is met, or cannot be told apart from the bound."""
    return [f"{ANSWERS[each.answer]:7}  {each.asked}: {each.found}" for each in told_checks(result)]


def _show(value: float, unit: str) -> str:
    if unit in ("s", "instructions", "simulated s"):
        return format_cost(value, unit)  # type: ignore[arg-type]
    if unit == "bytes":
        return format_bytes(value)
    if unit == "%":
        return f"{value:.2f} %"
    if unit == "":
        return f"{value:.4g}"
    return f"{format_figure(value)}x" if unit.startswith("share") else f"{value:.2f}"

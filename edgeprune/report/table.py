"""The final table: before and after, every figure from `result.json`, nothing recomputed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.core.types import Unit
from edgeprune.core.units import format_bytes, format_cost, format_millions, format_percent, format_speedup

Result = Mapping[str, Any]
_FILE = {"onnx": "ONNX", "tflite": "TFLite"}


def summary_table(result: Result) -> Table:
    """Rows of before, after and change; per format the device's figures."""
    before, after, device = result["baseline"], result["compressed"], result["device"]
    # What is no measurement of a real device says so wherever it is shown.
    kind = "emulated" if device["emulated"] else device["kind"]
    where = device["name"] + (f" ({kind})" if kind in ("emulated", "simulated") else "")
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(f"{result['config']['model']} on {result['config']['data']}"),
        title_justify="left",
    )
    table.add_column("")
    for column in ("unpruned", "pruned", "change"):
        table.add_column(column, justify="right")
    drop = after["error_points"]
    table.add_row(
        "test accuracy, host",
        format_percent(before["accuracy"]),
        format_percent(after["accuracy"]),
        f"{-drop:+.2f} points",
    )
    table.add_row("  before fine-tuning", "", format_percent(after["accuracy_before_finetune"]), "")
    table.add_row("neurons (NCR)", f"{before['neurons']:,}", f"{after['neurons']:,}", f"NCR {after['ncr']:.2f}")
    for name, key in (("parameters", "parameters"), ("MACs", "macs")):
        share = after[key] / before[key]
        table.add_row(name, f"{before[key]:,}", f"{after[key]:,}", f"{100 * share:.1f} % left")
    for item in result["artifacts"]:
        _artifact_rows(table, item, where)
    return table


def _artifact_rows(table: Table, item: Result, where: str) -> None:
    table.add_section()
    if not item["validated"]:
        table.add_row(f"{_FILE[item['format']]} on {where}", "", "", "not validated")
        table.add_row(f"  {escape(item['why_not'])}", "", "", "")
        return
    speed, ours, theirs = item["speedup"], item["latency"], item["baseline_latency"]
    table.add_row(f"{_FILE[item['format']]} on {where}", "", "", item["runtime"])
    change = item["device_accuracy"] - item["baseline_device_accuracy"]
    table.add_row(
        "  accuracy on device",
        format_percent(item["baseline_device_accuracy"]),
        format_percent(item["device_accuracy"]),
        f"{100 * change:+.2f} points",
    )
    table.add_row("  same class as host", "", format_percent(item["agreement"]), "")
    counted = ours["unit"] == "instructions"
    table.add_row(
        "  M instructions, emulated" if counted else "  latency, median",
        *(_cost(side["median"], side["unit"]) for side in (theirs, ours)),
        faster(speed["value"], speed["ci_low"], speed["ci_high"], ours["unit"]),
    )
    table.add_row("  95 % interval", "", "", f"{speed['ci_low']:.2f} to {speed['ci_high']:.2f}x")
    for name, new, old in (
        ("heap", item["peak_bytes"], item["baseline_peak_bytes"]),
        ("file", item["bytes"], item["baseline_bytes"]),
    ):
        table.add_row(f"  {name}", format_bytes(old), format_bytes(new), f"{100 * new / max(old, 1):.1f} % left")
    table.add_row("  verdict", "", "", item["verdict"] or "not judged")
    if item["advice"]:
        table.add_row(f"  {escape(item['advice'])}", "", "", "")


def _cost(value: float, unit: Unit) -> str:
    return format_millions(value) if unit == "instructions" else format_cost(value, unit)


def faster(value: float, low: float, high: float, unit: Unit) -> str:
    """A speed-up in words, or that the interval does not tell."""
    return "no difference shown" if low <= 1.0 <= high else format_speedup(value, unit)


def layers_line(result: Result) -> str:
    """The widths, as `784-300-100 -> 219-81-43`."""
    layers = result["compressed"]["layers"]
    return (
        f"{'-'.join(str(layer['channels']) for layer in layers)} -> {'-'.join(str(layer['kept']) for layer in layers)}"
    )


def budget_lines(result: Result) -> list[str]:
    """One line a bound: what was asked, what there is, whether it is met."""
    lines = []
    names = {"max_latency": "latency at most", "max_memory": "heap at most", "max_bytes": "file at most",
             "max_drop": "points lost at most", "expect_ncr": "NCR at least"}  # fmt: skip
    for check in result["budget"]["checks"]:
        unit = check["unit"]
        limit, value = (_show(check[key], unit) for key in ("limit", "value"))
        default = " (default)" if check["default"] else ""
        lines.append(f"{'met    ' if check['met'] else 'NOT MET'}  {names[check['bound']]} {limit}{default}: {value}")
    return lines


def _show(value: float, unit: str) -> str:
    if unit in ("s", "instructions", "simulated s"):
        return format_cost(value, unit)  # type: ignore[arg-type]
    if unit == "bytes":
        return format_bytes(value)
    return f"{value:.3g}x" if unit.startswith("share") else f"{value:.2f}"

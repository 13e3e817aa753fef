"""What a network is made of, as tables: every figure from an `Inspection` as JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.core.units import format_bytes, format_cost, format_share, format_speedup

Found = Mapping[str, Any]


def layer_table(found: Found) -> Table:
    """Every layer with work or parameters of its own: what it costs, and with which group it is pruned, or why not."""
    table = _table(f"{found['model']}: {found['parameters']:,} parameters, {found['macs']:,} MACs")
    table.add_column("layer", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("pruned with, or why not")
    for layer in found["layers"]:
        share = f"{layer['macs']:,} ({format_share(layer['macs_share'])})" if layer["macs"] else ""
        how = f"group {layer['group']}" if layer["group"] else layer["stays"] or ""
        table.add_row(escape(layer["name"]), layer["kind"], share, f"{layer['parameters']:,}", escape(how))
    return table


def group_table(found: Found) -> Table:
    """Every group of channels that go together: its widths, and what is left when it alone is at its narrowest."""
    table = _table(f"{len(found['groups'])} groups can be pruned; what is left with one of them at its narrowest")
    table.add_column("group", no_wrap=True)
    for name in ("channels", "least", "step", "MACs left", "latency left"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in found["groups"]:
        latency = group["latency_left"]
        table.add_row(
            escape(group["name"]),
            f"{group['channels']} {group['kind']}",
            "0" if group["removable"] else str(group["floor"]),
            str(group["step"]),
            f"{group['macs_left']:.3f}x",
            f"{latency['value']:.3f}x ({latency['low']:.3f} to {latency['high']:.3f})" if latency else "",
        )
    return table


def best_lines(found: Found) -> list[str]:
    """What a run could reach at best, and what was not measured or counted."""
    best, device = found["best"], found["device"]
    lines = [
        f"at best (every group at its narrowest): NCR {best['ncr']:.2f}, {100 * best['macs_left']:.1f} % of the MACs, "
        f"{100 * best['parameters_left']:.1f} % of the parameters"
    ]
    if device:
        latency = best["latency_left"]
        lines.append(
            f"on {device['name']} ({device['runtime']}): unpruned {format_cost(device['latency'], device['unit'])}, "
            f"{format_bytes(device['memory'])} heap, {format_bytes(device['bytes'])} file; at best "
            f"{format_speedup(1 / latency['value'], device['unit'])} ({latency['low']:.3f}x to "
            f"{latency['high']:.3f}x), "
            f"{best['memory_left']:.2f}x heap, {best['bytes_left']:.2f}x file"
        )
    else:
        lines.append("latency is not measured: --device NAME does, local is this machine")
    lines += [
        f"{group['name']}: one of its {group['channels']} is {group['rows']} rows of a weight (a head, a unit's gates, "
        "or a place in every group)"
        for group in found["groups"]
        if group["rows"] > 1
    ]
    lines += [
        f"{name} runs {', '.join(operations)}: such work is not counted as MACs"
        for name, operations in found["uncounted"].items()
    ]
    return lines


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", show_edge=False, padding=(0, 1, 0, 0))

"""Widths of the layers, and what became of each class, as bars with their figures beside them."""

from __future__ import annotations

from edgeprune.core.units import format_percent, format_share
from edgeprune.report.page.views import Bar, Bars, Key
from edgeprune.report.table import Result, layers_line

#: Rows that are shown at once.
_LAYERS, _CLASSES = 40, 12


def width_bars(result: Result) -> Bars:
    """A row a group of channels: how many there were and stay, the widest as wide as there is room."""
    layers = result["compressed"]["layers"]
    widest = max((layer["channels"] for layer in layers), default=1) or 1
    bars = tuple(
        Bar(
            layer["name"],
            "" if layer["kind"] == layer["name"] else layer["kind"],
            100 * layer["channels"] / widest,
            100 * layer["kept"] / widest,
            (f"{layer['channels']:,}", f"{layer['kept']:,}", format_share(layer["kept"] / max(layer["channels"], 1))),
        )
        for layer in layers
    )
    line = f"Channels that go together, before and after: {layers_line(result)}."
    text = line if len(line) < 300 else f"{len(layers)} groups of channels that go together, before and after."
    keys = (Key("box kept", "stays"), Key("box gone", "removed"))
    return Bars("Widths per layer", text, ("layer", "", "before", "after", "left"), keys, bars, _LAYERS)


def class_bars(result: Result) -> Bars | None:
    """A row a class, the one that lost most recall first; None where answers are no classes."""
    known = [each for each in result["classes"] if each["recall"] is not None]
    if not known:
        return None
    known.sort(key=lambda each: (each["recall"] - each["baseline_recall"], each["recall"]))
    bars = tuple(
        Bar(
            each["name"],
            f"{each['images']:,} examples",
            100 * each["baseline_recall"],
            100 * each["recall"],
            (
                format_percent(each["baseline_recall"]),
                format_percent(each["recall"]),
                f"{100 * (each['recall'] - each['baseline_recall']):+.2f}",
            ),
        )
        for each in known
    )
    text = f"Recall on the test set, host. {known[0]['name']} changed most for the worse: {bars[0].figures[2]} points."
    if known[0]["recall"] >= known[0]["baseline_recall"]:
        text = "Recall on the test set, host. No class lost any."
    keys = (Key("box kept", "pruned"), Key("tick", "unpruned"))
    return Bars("Quality per class", text, ("class", "", "unpruned", "pruned", "change, points"), keys, bars, _CLASSES)

"""Widths of the layers, and what became of each class, as bars with their figures beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.core.units import format_cost, format_percent, format_share
from edgeprune.report.page.views import Bar, Bars, Key
from edgeprune.report.table import Result, file_title, judged, layers_line

#: Rows that are shown at once.
_LAYERS, _CLASSES, _OPERATORS = 40, 12, 15


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


def operator_bars(result: Result) -> Bars | None:
    """A row an operator, the dearest first, of the judged file or another whose runtime tells; None where none does."""
    validated = [each for each in result["artifacts"] if each["validated"]]
    told = [each for each in (judged(result), *validated) if each["operators"] and each["baseline_operators"]]
    if not told:
        return None
    file = told[0]
    # Of a file of another precision most operators have other names: then it is told by their types.
    names = [{each["name"] for each in file[key]} for key in ("baseline_operators", "operators")]
    by = "name" if 2 * len(names[0] & names[1]) >= len(names[1]) and "" not in names[1] else "type"
    before, after = (_summed(file[key], by) for key in ("baseline_operators", "operators"))
    most = max(*before.values(), *after.values()) or 1.0
    types = {each[by]: each["type"] for key in ("baseline_operators", "operators") for each in file[key]}
    rows = sorted(types, key=lambda name: (-before.get(name, 0.0), -after.get(name, 0.0)))
    bars = tuple(
        Bar(
            name,
            "" if types[name] == name else types[name],
            100 * before.get(name, 0.0) / most,
            100 * after.get(name, 0.0) / most,
            tuple(format_cost(side[name], "s") if name in side else "-" for side in (before, after)),
        )
        for name in rows
    )
    sums = [format_cost(sum(side.values()), "s") for side in (before, after)]
    text = (
        f"{file_title(file)}, seconds per inference by {file['runtime']}'s own profiler, whose work is in them: "
        f"{sums[0]} in all before, {sums[1]} after. Shares are what counts here, latency is measured without it."
    )
    keys = (Key("box kept", "pruned"), Key("tick", "unpruned"))
    return Bars("Time per operator", text, ("operator", "", "unpruned", "pruned"), keys, bars, _OPERATORS)


def _summed(operators: Sequence[Mapping[str, Any]], by: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for each in operators:
        sums[each[by]] += each["seconds"]
    return sums

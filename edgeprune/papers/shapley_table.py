"""Pictures of Shapley pruning, as [Shapley] shows them: coalitions, ranked values, the network, accuracy per step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgeprune.core.files import storing

_INK, _KEPT, _GONE, _OTHER = "#333333", "#4477aa", "#c8c8c8", "#888888"
#: Nodes of a layer that are drawn; of wider layers some stand for all.
_NODES = 32


def draw_shapley(
    result: Mapping[str, Any], incoming: NDArray[Any] | None, outgoing: NDArray[Any], folder: Path
) -> list[Path]:
    """Write four PNGs to `folder` and return their paths: coalitions, values, network, accuracy.

    `result` is what shapley.json holds; `incoming` (channels, before) and `outgoing` (after, channels) are the sizes of
    the weights around the layer. Raises StorageError.
    """
    done = []
    for name, figure in (
        ("coalitions", _coalitions(result)),
        ("values", _values(result)),
        ("network", _network(result, incoming, outgoing)),
        ("accuracy", _accuracy(result)),
    ):
        path = folder / f"{name}.png"
        with storing(path):
            figure.savefig(path, format="png")
        done.append(path)
    return done


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)


def _layer(result: Mapping[str, Any]) -> str:
    layer = result["layer"]
    return f"layer {layer['name']}, {layer['channels']} {layer['kind']}"


def _coalitions(result: Mapping[str, Any]) -> Figure:
    named = result["coalitions"]
    figure = _figure(7.5, 1.2 + 0.32 * len(named))
    axes = figure.subplots()
    places = np.arange(len(named))[::-1]
    heights = [100 * each["accuracy"] for each in named]
    best = f"the {result['layer']['kept']} most useful"
    bars = axes.barh(places, heights, color=[_KEPT if each["name"] == best else _OTHER for each in named])
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8, color=_INK)
    axes.set_yticks(places, [each["name"] for each in named])
    axes.set_xlim(0, 109)
    axes.set_xlabel(f"accuracy on {result['game']['images']} validation images, %", fontsize=8, color=_INK)
    _plain(axes, f"v(S) of some coalitions S: {_layer(result)}")
    return figure


def _values(result: Mapping[str, Any]) -> Figure:
    ranked = result["values"]
    count = len(ranked)
    figure = _figure(min(11.0, max(6.5, 0.28 * count + 1.5)), 3.6)
    axes = figure.subplots()
    values, errors = (np.array([100 * each[key] for each in ranked]) for key in ("value", "error"))
    sampled = result["game"]["permutations"] is not None
    axes.bar(
        np.arange(count),
        values,
        color=[_KEPT if each["kept"] else _GONE for each in ranked],
        yerr=errors if sampled else None,
        error_kw={"elinewidth": 0.9, "ecolor": _INK, "capsize": 2 if count <= 64 else 0},
    )
    axes.axhline(0, color=_INK, linewidth=0.6)
    kept = result["layer"]["kept"]
    axes.axvline(kept - 0.5, color=_INK, linewidth=0.9, linestyle="--")
    axes.annotate(
        "stay", (kept - 0.7, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=8, color=_INK
    )
    axes.annotate(
        "go", (kept - 0.3, 0.97), xycoords=("data", "axes fraction"), ha="left", va="top", fontsize=8, color=_INK
    )
    if count <= 64:
        axes.set_xticks(np.arange(count), [str(each["channel"]) for each in ranked])
    else:
        axes.set_xticks([])
    axes.set_xlim(-0.8, count - 0.2)
    axes.set_xlabel(f"{result['layer']['kind']} by rank", fontsize=8, color=_INK)
    axes.set_ylabel("Shapley value, points of accuracy", fontsize=8, color=_INK)
    how = f"{result['game']['permutations']} permutations, bars of one standard error" if sampled else "exact"
    _plain(axes, f"Shapley values: {_layer(result)} ({how})")
    return figure


def _network(result: Mapping[str, Any], incoming: NDArray[Any] | None, outgoing: NDArray[Any]) -> Figure:
    figure = _figure(9.5, 5.2)
    figure.suptitle(_layer(result), fontsize=11, color=_INK, x=0.01, ha="left")
    for axes, after in zip(figure.subplots(1, 2), (False, True), strict=True):
        _draw_network(axes, result, incoming, outgoing, after)
    return figure


def _draw_network(
    axes: Axes, result: Mapping[str, Any], incoming: NDArray[Any] | None, outgoing: NDArray[Any], after: bool
) -> None:
    kept = {each["channel"] for each in result["values"] if each["kept"]}
    channels = _shown(len(result["values"]))
    stays = np.array([not after or c in kept for c in channels])
    sides = [(2.0, _shown(outgoing.shape[0]), outgoing[:, channels].T)]
    if incoming is not None:
        sides.append((0.0, _shown(incoming.shape[1]), incoming[channels]))
    middle = _heights(len(channels))
    for x, others, weights in sides:
        heights = _heights(len(others))
        strengths = weights[:, others] / max(float(weights.max()), 1e-30)
        lines = [[(1.0, a), (x, b)] for a in middle for b in heights]
        colours = [
            to_rgba(_KEPT if stay else _GONE, 0.08 + 0.75 * float(strength) if stay else 0.25)
            for stay, row in zip(stays, strengths, strict=True)
            for strength in row
        ]
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.7, zorder=1))
        axes.scatter([x] * len(others), heights, s=_size(len(others)), color=_OTHER, zorder=2)
    face = [_KEPT if stay else "white" for stay in stays]
    edge = [_KEPT if stay else _GONE for stay in stays]
    axes.scatter([1.0] * len(channels), middle, s=_size(len(channels)), color=face, edgecolors=edge, zorder=3)
    left = len(kept) if after else len(result["values"])
    for x, total in [(1.0, left), (2.0, outgoing.shape[0])] + (
        [(0.0, incoming.shape[1])] if incoming is not None else []
    ):
        axes.annotate(str(total), (x, -0.03), ha="center", va="top", fontsize=9, color=_INK)
    parameters = result["parameters"]["pruned" if after else "unpruned"]
    some = "" if max(len(result["values"]), *outgoing.shape) <= _NODES else ", some nodes drawn"
    axes.set_title(
        f"{'after' if after else 'before'}: {parameters:,} parameters{some}", loc="left", fontsize=10, color=_INK
    )
    axes.set_xlim(-0.15 if incoming is not None else 0.85, 2.15)
    axes.set_ylim(-0.1, 1.03)
    axes.axis("off")


def _shown(count: int) -> NDArray[np.int64]:
    """Evenly chosen nodes: all of up to `_NODES`."""
    return np.unique(np.linspace(0, count - 1, min(count, _NODES)).round().astype(np.int64))


def _heights(count: int) -> NDArray[np.float64]:
    return np.linspace(1.0, 0.0, count) if count > 1 else np.array([0.5])


def _size(count: int) -> float:
    return 90.0 if count <= 16 else 40.0


def _accuracy(result: Mapping[str, Any]) -> Figure:
    figure = _figure(5.2, 3.4)
    axes = figure.subplots()
    accuracy = result["accuracy"]
    shares = [100 * accuracy[key] for key in ("unpruned", "pruned", "fine_tuned")]
    bars = axes.bar(["unpruned", "pruned", "fine-tuned"], shares, width=0.6, color=[_OTHER, _GONE, _KEPT])
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=9, color=_INK)
    axes.set_ylim(0, 109)
    axes.set_ylabel(f"accuracy on {accuracy['test_images']:,} test images, %", fontsize=8, color=_INK)
    layer = result["layer"]
    _plain(axes, f"layer {layer['name']}: {layer['channels']} -> {layer['kept']} {layer['kind']}")
    return figure

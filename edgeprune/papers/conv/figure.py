"""The picture of a `bench conv`: points lost against measured latency, a line per method."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edgeprune.core.files import storing
from edgeprune.papers.conv.records import METHODS, ConvBench
from edgeprune.papers.figures import LOOKS, Look

_INK, _GREY = "#333333", "#bbbbbb"
_OTHERS = {"tpe": Look("#cc79a7", "--"), "scratch": Look("#777777", "-")}


def draw_conv(bench: ConvBench, path: Path) -> bool:
    """Write a PNG, an axis per network: means over seeds as lines, seeds as dots, bounds as dashed lines.

    False where nothing is finished yet, and nothing is written. Raises StorageError.
    """
    networks = [name for name in bench.networks if any(end.network == name for end in bench.finished.values())]
    if not networks:
        return False
    figure = Figure(figsize=(1.2 + 4.2 * len(networks), 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(networks), squeeze=False)
    for axes, network in zip(grid[0], networks, strict=True):
        bounds = [bound for name, bound in bench.places() if name == network]
        for bound in bounds:
            axes.axvline(bound, color=_GREY, linewidth=0.8, linestyle="--", zorder=0)
        for method in METHODS:
            look = _OTHERS[method] if method in _OTHERS else LOOKS[method]
            ends = [list(bench.ends(network, bound, method).values()) for bound in bounds]
            ends = [each for each in ends if each]
            means = [(fmean(e.latency.value for e in each), fmean(e.lost for e in each)) for each in ends]
            if not means:
                continue
            axes.plot(*zip(*means, strict=True), color=look.colour, linestyle=look.line, marker="o", label=method)
            for end in (end for each in ends if len(each) > 1 for end in each):
                axes.plot(end.latency.value, end.lost, ".", color=look.colour, alpha=0.4, markersize=4)
        axes.set_title(network, loc="left", fontsize=10, color=_INK)
        axes.set_xlabel("latency, as a share of the unpruned network's", fontsize=9)
        axes.tick_params(labelsize=9, colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("test accuracy lost, points", fontsize=9)
    handles = {label: line for axes in grid[0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=9, frameon=False)
    with storing(path):
        figure.savefig(path, format="png")
    return True

"""A front as a picture: quality against what the bounds are on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edgeprune.core.files import storing
from edgeprune.report.checks import ANSWERS
from edgeprune.report.front import BOUNDED, Front
from edgeprune.tasks.metrics import metric_named

_INK, _TRIED, _LINE = "#333333", "#9bb5cc", "#bbbbbb"
_COLOURS = {"met": "#228833", "open": "#ccbb44", "not met": "#cc3311"}


def draw_front(front: Front, path: Path) -> None:
    """Write a PNG: score of every trial before fine-tuning, quality of the finished networks with 95 % intervals.

    The horizontal axis is what the bounds are on, as a share of the unpruned network's (or the NCR). Trials far below
    everything else are told in words: they would press the rest against the upper edge. Raises StorageError.
    """
    figure = front_figure(front)
    with storing(path):
        figure.savefig(path, format="png")


def front_figure(front: Front) -> Figure:
    """What `draw_front` writes."""
    figure = Figure(figsize=(7.5, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    name, key = BOUNDED[front["bound"]]
    reached = [point for point in front["points"] if point["status"] != "impossible"]
    metric = metric_named(front["metric"])
    # Shares are told in percent; of errors less is better, and the best are drawn at the top all the same.
    whole = 100 if metric.share else 1
    unpruned = front["unpruned"]["quality"]["value"]
    worst = _worst_shown(front, reached, 1 if metric.share else -1)
    _draw_trials(axes, front, key, worst, whole, 1 if metric.share else -1)
    for index, point in enumerate(front["points"]):
        axes.axvline(
            point["limit"], color=_LINE, linewidth=1.0, linestyle="--", zorder=0, label="" if index else "bounds"
        )
    axes.axhline(whole * unpruned, color=_INK, linewidth=0.8, linestyle=":", zorder=0)
    axes.annotate(
        "unpruned", (0.5, whole * unpruned), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="center", fontsize=8, color=_INK,
    )  # fmt: skip
    named: set[str] = set()
    for point in reached:
        x, left, right = _place(point, key)
        y = point["quality"]
        colour = _COLOURS[point["answer"]]
        axes.errorbar(
            [x], [whole * y["value"]], xerr=[[x - left], [right - x]],
            yerr=[[max(0.0, whole * (y["value"] - y["low"]))], [max(0.0, whole * (y["high"] - y["value"]))]],
            fmt="o", color=colour, markersize=6, capsize=3, linewidth=1.3, zorder=3,
            label="" if point["answer"] in named else f"finished, on test: {ANSWERS[point['answer']]}",
        )  # fmt: skip
        named.add(point["answer"])
        axes.annotate(
            point["asked"], (x, whole * y["value"]), xytext=(7, 5), textcoords="offset points", fontsize=8, color=_INK
        )
    # Last: from here on no axis grows by itself.
    axes.set_ylim(bottom=whole * worst)
    if not metric.share:
        best = min([front["unpruned"]["quality"]["low"], *(point["quality"]["low"] for point in reached)])
        axes.set_ylim(bottom=worst, top=best - 0.05 * (worst - best))
    axes.set_xlabel(name if key == "ncr" else f"{name}, as a share of the unpruned network's", fontsize=9, color=_INK)
    axes.set_ylabel(f"{metric.title}, %" if metric.share else metric.title, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes: in them, wherever it is put, it covers trials of some run.
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    figure.suptitle(
        f"{front['model']} on {front['data']}, {front['device']['name']}", fontsize=10, color=_INK, x=0.01, ha="left"
    )
    return figure


def _place(point: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    """Where a finished network lies, and its interval."""
    if key == "latency_share":
        share = point[key]
        return share["value"], share["low"], share["high"]
    return point[key], point[key], point[key]


def _worst_shown(front: Front, reached: list[Any], sign: int) -> float:
    """The figure at the lower edge: some of the best trials, and all finished networks, are above it.

    `sign` is 1 where more is better, -1 where less is.
    """
    scores = sorted((sign * trial["score"] for trial in front["trials"]), reverse=True)
    end = "low" if sign > 0 else "high"
    finished = [sign * point["quality"][end] for point in reached]
    least = min([*finished, *scores[: max(1, len(scores) * 3 // 4)]])
    other = "high" if sign > 0 else "low"
    highest = max([sign * front["unpruned"]["quality"][other], *finished, *scores[:1]])
    lowest = float(max(least, highest - 6 * (highest - min(finished))))
    return sign * (lowest - 0.05 * (float(highest) - lowest))


def _draw_trials(axes: Axes, front: Front, key: str, worst: float, whole: int, sign: int) -> None:
    tried = np.array([(t[key], whole * t["score"]) for t in front["trials"] if t[key] is not None], float)
    tried = tried.reshape(-1, 2)
    shown = tried[sign * tried[:, 1] >= sign * whole * worst]
    below = len(tried) - len(shown)
    label = f"{len(tried)} trials on validation, before fine-tuning" + (f" ({below} lie lower)" if below else "")
    axes.scatter(shown[:, 0], shown[:, 1], s=12, color=_TRIED, zorder=1, label=label, linewidths=0)

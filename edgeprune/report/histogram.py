"""A picture of raw latencies: how often which, a panel per file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edgeprune.core.units import format_cost

_BINS = 80
_INK, _BAR, _LINE = "#333333", "#4477aa", "#cc3311"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Panel(NamedTuple):
    """One file: its name, the median that the table shows, and every run, in seconds."""

    name: str
    median: float
    runs: Sequence[float]


def draw_histogram(panels: Sequence[Panel], path: Path, where: str) -> None:
    """Write a PNG of seconds per inference. Raises StorageError, and OSError where there is no such folder.

    The slowest half per cent and what takes more than three times the median, mostly moments in which something else
    ran, is told in words and not drawn: it would press everything else against the left edge.
    """
    figure = Figure(figsize=(8, 1.2 + 1.9 * len(panels)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (name, median, runs) in zip(rows, panels, strict=True):
        values = np.asarray(runs, float)
        scale, unit = next((each for each in _UNITS if median >= each[0]), _UNITS[-1])
        low, high = float(values.min()), min(float(np.quantile(values, 0.995)), 3 * median)
        shown = values[values <= high]
        axes.hist(shown / scale, bins=_BINS, range=(low / scale, max(high, low * 1.001) / scale), color=_BAR)
        axes.axvline(median / scale, color=_LINE, linewidth=1.2)
        beyond = len(values) - len(shown)
        tail = f", {beyond:,} slower, not drawn, up to {format_cost(float(values.max()), 's')}" if beyond else ""
        axes.set_title(
            f"{name}: median {format_cost(median, 's')}, {len(values):,} runs{tail}",
            loc="left",
            fontsize=9,
            color=_INK,
        )
        axes.set_xlabel(f"{unit} per inference", fontsize=8, color=_INK)
        axes.set_ylabel("runs", fontsize=8, color=_INK)
        axes.tick_params(labelsize=8, colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Latency on {where}", fontsize=11, color=_INK, x=0.01, ha="left")
    figure.savefig(path, format="png")

"""Weight maps of each layer, before and after (figures 12 and 13 of Wang et al., Mathematics 2023, 11, 338)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from safetensors.numpy import load_file

from edgeprune.core.errors import StorageError
from edgeprune.core.reading import Source
from edgeprune.papers.records import Bench

Weights = dict[str, NDArray[Any]]

_INK, _GONE = "#333333", "#e8e8e8"
#: The scale ends at this quantile of the unpruned layer: a few large weights would darken all others.
_TOP = 0.99
_AGAIN = "remove that file and run the bench again"


def draw_weights(bench: Bench, method: str) -> Figure | None:
    """|w| of every layer, unpruned and compressed on one scale, for the first seed that has both files; else None.

    A map's rows are the layer's neurons, its columns their inputs; what is exactly zero is grey. Raises StorageError.
    """
    for cell in bench.of(method):
        before, after = (
            None if name is None else bench.folder / name
            for name in (f"weights/baseline-{cell.seed}.safetensors", cell.weights)
        )
        if before is not None and after is not None and before.is_file() and after.is_file():
            full, cut = _load(before), _load(after)
            other = [name for name in full if name not in cut or cut[name].shape != full[name].shape]
            if other:
                raise StorageError(f"{after} has no '{other[0]}' of the shape in {before}", _AGAIN)
            return _draw(full, cut, f"{method}, seed {cell.seed}: {cell.layers}")
    return None


def _draw(before: Weights, after: Weights, title: str) -> Figure:
    names = [name for name, weight in before.items() if weight.ndim == 2]
    # One above the other, and tall: each column, and each row, of the widest layer should have pixels of its own.
    heights = [min(3.0, 1.2 + before[name].shape[0] / 150) for name in names for _ in range(2)]
    figure = Figure(figsize=(10, 0.6 + 0.4 * len(heights) + sum(heights)), layout="constrained")
    grid = figure.subplots(len(heights), 1, height_ratios=heights).reshape(len(names), 2)
    colours = colormaps["viridis_r"].with_extremes(bad=_GONE)
    for pair, name in zip(grid, names, strict=True):
        full, cut = (np.abs(weights[name].astype(float)) for weights in (before, after))
        top = float(np.quantile(full, _TOP))
        for axes, weight, side in zip(pair, (full, cut), ("before", "after"), strict=True):
            shown = np.where(weight == 0, np.nan, weight)
            # "nearest" leaves out what has no pixel; a mean over it would hide which ones went.
            image = axes.imshow(shown, cmap=colours, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
            rows, columns = (int(np.any(weight != 0, axis=axis).sum()) for axis in (1, 0))
            used = f"{rows} of {weight.shape[0]} neurons, {columns} of {weight.shape[1]} inputs"
            axes.set_title(f"{name} {side}: {used}", loc="left", fontsize=10, color=_INK)
            axes.set_ylabel("neuron", color=_INK)
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.tick_params(labelsize=9, colors=_INK)
        axes.set_xlabel("input", color=_INK)
        bar = figure.colorbar(image, ax=list(pair), extend="max", pad=0.01, aspect=30)
        bar.set_label("|w| (grey: exactly 0)", color=_INK)
        bar.ax.tick_params(labelsize=8, colors=_INK)
    figure.suptitle(f"Weights before and after: {title}", fontsize=12, color=_INK, x=0.01, ha="left")
    return figure


def _load(path: Path) -> Weights:
    with Source(path, StorageError, _AGAIN).guarded():
        found: Weights = load_file(path)
    return found

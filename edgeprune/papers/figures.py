"""The paper's figures of a bench, as PNGs. A figure whose data is missing is not drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from edgeprune.core.errors import StorageError
from edgeprune.papers.published import published_row
from edgeprune.papers.records import Bench, base_method, in_order
from edgeprune.papers.statistics import Spread, mean_range, spread
from edgeprune.papers.table import display_name
from edgeprune.papers.weights import draw_weights

Array = NDArray[np.float64]

_DPI = 150
_INK, _GREY = "#333333", "#777777"


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    line: str


#: Searching methods, which share axes as lines, take the colours of Okabe and Ito (Color Universal Design, 2008);
#: others, only ever named rows, muted ones of Tol (SRON/EPS/TN/09-002).
LOOKS = {
    "unpruned": Look("#777777", "-"),
    "cges": Look("#ddcc77", "-"),
    "l0": Look("#999933", "-"),
    "autoprune": Look("#332288", "-"),
    "amc": Look("#0072b2", "-."),
    "acnn": Look("#d55e00", "-"),
    "acnn-noprox": Look("#cc79a7", "--"),
    "uniform": Look("#e69f00", ":"),
    "random": Look("#56b4e9", "--"),
    "greedy": Look("#009e73", "-."),
    "edgeprune": Look("#000000", "-"),
    "edgeprune-noprox": Look("#882255", "--"),
}
#: Weight maps are drawn of the paper's method and of ours.
_MAPPED = ("acnn", "edgeprune")


def draw_figures(bench: Bench, folder: Path) -> list[Path]:
    """Write the figures there is data for to `folder`, which is made where needed, and name them.

    losses.png       critic and actor per iteration (the paper's figure 3)
    beta.png         accuracy and NCR against β (4)
    rewards.png      reward per episode (5)
    density.png      density and time per method (7, 9, 11)
    accuracy.png     accuracy per method (6, 8, 10)
    weights-*.png    weight maps of each layer before and after (12, 13), of ACNN and of edgeprune
    evaluations.png  best reward so far against evaluations

    Raises StorageError where a file cannot be written, or weights cannot be read.
    """
    drawings: list[tuple[str, Callable[[Bench], Figure | None]]] = [
        ("losses", _losses),
        ("beta", _beta),
        ("rewards", _rewards),
        ("density", _density),
        ("accuracy", _accuracy),
        *((f"weights-{method}", lambda bench, method=method: draw_weights(bench, method)) for method in _MAPPED),
        ("evaluations", _evaluations),
    ]
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in drawings:
            figure = draw(bench)
            if figure is not None:
                path = folder / f"{name}.png"
                FigureCanvasAgg(figure)
                figure.savefig(path, format="png", dpi=_DPI)
                written.append(path)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}", "choose another folder") from error
    return written


def moving_average(values: Array) -> Array:
    """Mean of each value and its neighbours, together a 20th of all (at least 5), fewer at the ends. (n,) -> (n,)."""
    reach = max(5, len(values) // 20) // 2
    sums = np.cumsum(np.insert(values, 0, 0.0))
    places = np.arange(len(values))
    starts, ends = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def best_so_far(curves: Sequence[Sequence[float]], budget: int) -> Array:
    """Best rewards (seeds, budget) of searches, some of which ended early and kept theirs."""
    return np.array([np.pad(curve[:budget], (0, max(0, budget - len(curve))), "edge") for curve in curves], float)


def _losses(bench: Bench) -> Figure | None:
    methods = [method for method in bench.methods if any(cell.losses for cell in bench.of(method))]
    if not methods:
        return None
    width = max(10.0, 2.0 * len(methods))
    figure, grid = _panels(bench, "Loss of the agent per iteration", 2, len(methods), height=5.6, width=width)
    for column, method in enumerate(methods):
        for row, name in enumerate(("critic", "actor")):
            axes = grid[row, column]
            _runs(axes, [[pair[row] for pair in cell.losses] for cell in bench.of(method)], method)
            if row == 0:
                axes.set_title(method, loc="left", fontsize=10, color=_INK)
            else:
                axes.set_xlabel("iteration")
            if column == 0:
                axes.set_ylabel(f"loss of the {name}")
    return figure


def _beta(bench: Bench) -> Figure | None:
    if bench.beta is None or not bench.beta.points:
        return None
    sweep = bench.beta
    points = sorted(sweep.points, key=lambda each: each.beta)
    title = f"Accuracy and NCR against β: {sweep.method}, seed {sweep.seed}"
    figure, grid = _panels(bench, title, 2, 1, height=5.6, width=8, sharex=True)
    betas, look = [each.beta for each in points], _look(sweep.method)
    shares, rates = [100 * each.accuracy for each in points], [each.ncr for each in points]
    for axes, values, label in zip(
        grid[:, 0], (shares, rates), ("validation accuracy, %,\nbefore fine-tuning", "NCR"), strict=True
    ):
        axes.plot(betas, values, color=look.colour, marker="o")
        axes.set_ylabel(label)
    if betas[0] > 0 and betas[-1] / betas[0] >= 20:
        grid[1, 0].set_xscale("log")
        grid[1, 0].set_xticks(betas, [f"{beta:g}" for beta in betas])
        grid[1, 0].minorticks_off()
    grid[1, 0].set_xlabel("β, the weight of NCR in the reward")
    return figure


def _rewards(bench: Bench) -> Figure | None:
    methods = [method for method in bench.methods if any(cell.rewards for cell in bench.of(method))]
    if not methods:
        return None
    columns = min(3, len(methods))
    rows = math.ceil(len(methods) / columns)
    title = "Reward per episode: seeds, and the moving average of their mean"
    figure, grid = _panels(bench, title, rows, columns, height=0.8 + 2.5 * rows, sharey=True)
    for method, axes in zip(methods, grid.flat, strict=False):
        _runs(axes, [cell.rewards for cell in bench.of(method)], method)
        axes.set_title(method, loc="left", fontsize=10, color=_INK)
        axes.set_xlabel("episode")
    for axes in grid[:, 0]:
        axes.set_ylabel("reward")
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    return figure


def _density(bench: Bench) -> Figure | None:
    # What is not pruned would press all others together.
    methods = [method for method in bench.methods if bench.of(method) and method != "unpruned"]
    if not methods:
        return None
    figure, grid = _panels(bench, "Density and time per method", 1, 2, height=1.6 + 0.5 * len(methods), sharey=True)
    density, time = grid[0]
    rows = {method: published_row(bench.data, method) if bench.published else None for method in methods}
    for place, (method, row) in enumerate(rows.items()):
        cells, colour = bench.of(method), _look(method).colour
        neurons, macs = [100 / cell.ncr for cell in cells], [100 * cell.macs_share for cell in cells]
        printed = 100 / row.ncr[0] if row else 0.0
        for offset, values, alpha, beyond in ((-0.19, neurons, 1.0, printed), (0.19, macs, 0.5, 0.0)):
            found = _known(values)
            density.barh(place + offset, found.mean, 0.36, color=colour, alpha=alpha)
            if found.std:
                density.errorbar(found.mean, place + offset, xerr=found.std, color=_GREY, capsize=2, linewidth=1)
            density.annotate(
                f"{found.mean:.1f}" + (f", published {beyond:.1f}" if beyond else ""),
                (max(found.mean + (found.std or 0), beyond), place + offset), (7, 0),
                textcoords="offset points", va="center", fontsize=9, color=_INK,
            )  # fmt: skip
        _seconds(time, place - 0.15, [cell.search_seconds for cell in cells], colour, "o", filled=True)
        _seconds(time, place + 0.15, [cell.finetune_seconds for cell in cells], colour, "s", filled=False)
        if row is not None:
            density.plot(printed, place - 0.19, "D", color=_GREY, markerfacecolor="white", markersize=6)
        if row is not None and row.seconds is not None:
            time.plot(row.seconds[0], place - 0.15, "D", color=_GREY, markerfacecolor="white", markersize=6)
    density.set_yticks(range(len(methods)), methods)
    density.invert_yaxis()
    density.margins(x=0.5 if any(rows.values()) else 0.15)
    density.set_xlim(left=0)
    density.set_xlabel("left of the unpruned network, %")
    time.set_xscale("log")
    time.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    time.grid(axis="x", color="#dddddd", linewidth=0.8)
    time.set_axisbelow(True)
    keys = [("s", _INK, _INK, 1.0, "neurons (1/NCR)"), ("s", _INK, _INK, 0.5, "multiply-accumulates")]
    clocks = [("o", _INK, _INK, 1.0, "search"), ("s", _INK, "white", 1.0, "fine-tuning")]
    if any(rows.values()):
        keys.append(("D", _GREY, "white", 1.0, "published"))
    elsewhere = any(row and row.seconds for row in rows.values())
    time.set_xlabel("time, s (published: on another machine)" if elsewhere else "time, s")
    if elsewhere:
        clocks.append(("D", _GREY, "white", 1.0, "published"))
    _key(density, keys)
    _key(time, clocks)
    return figure


def _accuracy(bench: Bench) -> Figure | None:
    methods = [method for method in bench.methods if bench.of(method)]
    if not methods:
        return None
    title = "Test accuracy per method, before and after fine-tuning"
    figure, grid = _panels(bench, title, 1, 2, height=1.6 + 0.42 * len(methods), sharey=True)
    whole, near = grid[0]
    means = {method: _known([100 * cell.accuracy for cell in bench.of(method)]).mean for method in methods}
    # One method that fails would press all others together.
    floor = max(means.values()) - max(0.5, 4 * (max(means.values()) - median(means.values())))
    for place, method in enumerate(methods):
        cells, colour = bench.of(method), _look(method).colour
        before, after = ([100 * getattr(cell, name) for cell in cells] for name in ("accuracy_before", "accuracy"))
        whole.plot([_known(before).mean, _known(after).mean], [place, place], color=colour, linewidth=1.5, alpha=0.6)
        for values, filled in ((before, False), (after, True)):
            _point(whole, place, values, colour, "o", filled=filled)
        if means[method] < floor:
            near.annotate(
                f"◂ {means[method]:.2f}", (0, place), (4, 0), xycoords=near.get_yaxis_transform(),
                textcoords="offset points", va="center", fontsize=9, color=_INK,
            )  # fmt: skip
            continue
        near.plot(after, np.full(len(after), place + 0.22), "|", color=colour, markersize=7)
        _point(near, place, after, colour, "o", filled=True)
    unpruned = spread([100 * each.accuracy for each in bench.baselines])
    if unpruned is not None:
        for axes in (whole, near):
            axes.axvline(unpruned.mean, color=_GREY, linestyle="--", linewidth=1.2, zorder=0)
        near.set_title(f"dashed: unpruned, {unpruned.mean:.2f} %", loc="left", fontsize=9, color=_GREY)
    whole.set_yticks(range(len(methods)), methods)
    whole.invert_yaxis()
    whole.set_xlabel("test accuracy, %")
    near.set_xlabel("after fine-tuning only: test accuracy, % (ticks: seeds)")
    _key(whole, [("o", _INK, "white", 1.0, "before"), ("o", _INK, _INK, 1.0, "after fine-tuning")])
    return figure


def _evaluations(bench: Bench) -> Figure | None:
    if bench.evals is None or not bench.evals.methods:
        return None
    evals = bench.evals
    title = f"Best reward so far, mean of {len(evals.seeds)} seeds; at the end its 95 % interval"
    figure, grid = _panels(bench, title, 1, 1, height=5, width=8.5)
    axes, steps = grid[0, 0], np.arange(1, evals.budget + 1)
    gap = 0.025 * evals.budget
    place = evals.budget + gap / 2
    ends: list[float] = []
    for method in in_order(set(evals.methods)):
        curves = best_so_far(evals.methods[method].curves, evals.budget)
        # 0 says that no plan reached the rate yet.
        found = np.flatnonzero(curves.min(0) > 0)
        if not len(found):
            continue
        ranges = [mean_range([float(value) for value in column]) for column in curves.T[found]]
        look, means = _look(method), [each.value for each in ranges]
        axes.plot(steps[found], means, color=look.colour, linestyle=look.line, linewidth=2, label=method)
        # Bands of six methods would hide one another.
        low, high = ranges[-1].interval or (means[-1], means[-1])
        place += gap
        axes.errorbar(
            place, means[-1], yerr=[[means[-1] - low], [high - means[-1]]], fmt="o", color=look.colour, capsize=3,
            linewidth=1.5, markersize=5,
        )  # fmt: skip
        ends += [low, high]
    if ends:
        # What the first evaluations found would press the ends together.
        height = max(ends) - min(ends) or 1e-3
        axes.set_ylim(min(ends) - 0.1 * height, max(ends) + 0.1 * height)
    axes.set_xlim(1, place + gap)
    axes.axvline(evals.budget, color=_GREY, linewidth=0.8)
    axes.set_xlabel("evaluations of a candidate")
    axes.set_ylabel("best reward so far")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False)
    return figure


def _panels(
    bench: Bench, title: str, rows: int, columns: int, *, height: float, width: float = 10,
    sharex: bool = False, sharey: bool = False,
) -> tuple[Figure, NDArray[Any]]:  # fmt: skip
    """An empty grid of axes (rows, columns); sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for axes in grid.flat:
        axes.tick_params(labelsize=9, colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
    heading = f"{title} ({display_name(bench.data)}, {'-'.join(map(str, bench.net))})"
    figure.suptitle(heading, fontsize=12, color=_INK, x=0.01, ha="left")
    return figure, grid


def _runs(axes: Axes, runs: Sequence[Sequence[float]], method: str) -> None:
    """Each seed thin, the moving average of the seeds' mean thick, as far as all of them went."""
    look = _look(method)
    runs = [run for run in runs if run]
    for run in runs:
        axes.plot(range(1, len(run) + 1), run, color=look.colour, linewidth=0.6, alpha=0.35)
    shortest = min(map(len, runs))
    mean = np.mean([run[:shortest] for run in runs], axis=0)
    axes.plot(range(1, shortest + 1), moving_average(mean), color=look.colour, linewidth=2.2)


def _point(axes: Axes, place: float, values: Sequence[float], colour: str, marker: str, *, filled: bool) -> None:
    found = _known(values)
    axes.errorbar(
        found.mean, place, xerr=found.std or 0, fmt=marker, color=colour, capsize=3, linewidth=1.2,
        markerfacecolor=colour if filled else "white", markersize=7,
    )  # fmt: skip


def _seconds(axes: Axes, place: float, values: Sequence[float], colour: str, marker: str, *, filled: bool) -> None:
    """Nothing where no time was spent: a logarithmic axis has no 0."""
    if _known(values).mean > 0:
        _point(axes, place, values, colour, marker, filled=filled)


def _key(axes: Axes, entries: Sequence[tuple[str, str, str, float, str]]) -> None:
    """A legend above the axes: (marker, edge, face, alpha, text) each."""
    handles = [
        axes.plot([], [], marker, color=edge, markerfacecolor=face, alpha=alpha, markersize=7, label=text)[0]
        for marker, edge, face, alpha, text in entries
    ]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), fontsize=9, frameon=False,
        handletextpad=0.2, columnspacing=1.0, borderaxespad=0.2,
    )  # fmt: skip


def _look(method: str) -> Look:
    """A variant ("edgeprune@5") takes its method's colour, lighter."""
    look = LOOKS.get(base_method(method), Look(_GREY, "-"))
    if base_method(method) == method:
        return look
    red, green, blue = (round(255 * (0.55 * share + 0.45)) for share in to_rgb(look.colour))
    return Look(f"#{red:02x}{green:02x}{blue:02x}", ":")


def _known(values: Sequence[float]) -> Spread:
    found = spread(values)
    if found is None:
        raise ValueError("a mean needs values")
    return found

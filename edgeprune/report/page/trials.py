"""All trials as a picture: quality against cost, with those that no other beats, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeprune.core.measurement import Measurement
from edgeprune.core.trial import Trial
from edgeprune.core.units import format_bytes, format_cost, format_figure
from edgeprune.report.front import BOUNDED
from edgeprune.report.page.finished import FrontRun, Network
from edgeprune.report.page.summary import COST
from edgeprune.report.page.views import Cell, Chart, Key, Pill, Table
from edgeprune.tasks.metrics import Metric, metric_named

#: Marks of a trial, as the script knows them.
_TRIED, _BEST, _CHOSEN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Dot:
    """A trial that was measured: where it lies."""

    trial: Trial
    x: float
    y: float
    #: Cost in words, and what is left of latency and heap.
    cost: str
    latency: float
    memory: float


@dataclass(frozen=True, slots=True)
class _Axes:
    """What is drawn against what."""

    x_title: str
    y_title: str
    #: What latency is called on this device.
    cost: str
    #: Whether y is a share, which is told in percent, and whether more of it is better.
    percent: bool
    higher: bool
    #: How y is written.
    metric: Metric | None

    def show(self, y: float) -> str:
        return self.metric.show(y) if self.metric is not None else f"{y:.3f}"


def trial_chart(run: Network, id: str) -> Chart | None:
    """Of a run with one budget; None where no trial was measured.

    What a search scores is a share. Of a metric of errors that is how far the network is from the best constant answer
    (0) to no error (1), which is said, since the error itself is not kept with a trial.
    """
    result = run.result
    metric = metric_named(result["metric"])
    share = metric.share
    y_title = f"{metric.title}, validation" if share else "score of the search, 1 is no error"
    unit: Any = result["device"]["unit"]
    x_title = f"{COST[unit]}, share of the unpruned network's"
    axes = _Axes(x_title, y_title, COST[unit], share, True, metric if share else None)
    dots = []
    for trial in run.trials:
        cost = trial.candidate.cost
        if isinstance(cost, Measurement):
            left, told = cost.quotient, format_cost(cost.median, cost.unit)
            dots.append(_Dot(trial, left, trial.candidate.accuracy, told, left, cost.memory_quotient))
    if not dots:
        return None
    channels = {layer["name"]: layer["channels"] for layer in result["compressed"]["layers"]}
    chosen = {result["search"]["best_trial"]}
    unpruned = result["search"]["reward"]["accuracy"]
    limits = result["search"]["reward"].get("limits") or {}
    bound = limits.get("latency")
    lines = [] if bound is None else [(bound, f"bound {format_figure(bound)}x")]
    made = _chart(id, dots, axes, chosen, channels, unpruned, lines, (), len(run.trials) - len(dots))
    tuned = f"After fine-tuning the chosen one scores {metric.show(result['compressed']['validation_score'])} there."
    return replace(made, notes=(*made.notes, tuned)) if share else made


def front_chart(run: FrontRun, id: str) -> Chart | None:
    """Of a run with several bounds: the same, with each finished network where its files were measured to lie."""
    front = run.front
    metric = metric_named(front["metric"])
    title, key = BOUNDED[front["bound"]]
    unit: Any = front["device"]["unit"]
    title = COST[unit] if key == "latency_share" else title
    x_title = title if key == "ncr" else f"{title}, share of the unpruned network's"
    axes = _Axes(x_title, metric.title, COST[unit], metric.share, metric.share, metric)
    known = {trial.index: trial for trial in run.trials}
    # As the front tells them: finalists were measured again since they were stored.
    dots = [
        _Dot(known[each["trial"]], each[key], each["score"], "", each["latency_share"], each["memory_share"])
        for each in front["trials"]
        if each["latency_share"] is not None and each["trial"] in known
    ]
    if not dots:
        return None
    reached = [point for point in front["points"] if point["status"] != "impossible"]
    finished = tuple(_finished(point, key) for point in reached)
    channels = {layer["name"]: layer["channels"] for layer in run.networks[0].result["compressed"]["layers"]}
    lines = [(point["limit"], point["asked"]) for point in front["points"]]
    chosen = {point["trial"] for point in reached}
    unpruned = front["unpruned"]["quality"]["value"]
    return _chart(id, dots, axes, chosen, channels, unpruned, lines, finished, len(run.trials) - len(dots))


def _finished(point: Mapping[str, Any], key: str) -> dict[str, Any]:
    x = point[key]
    share = x if isinstance(x, Mapping) else {"value": x, "low": x, "high": x}
    y = point["quality"]
    return {
        "x": share["value"], "xl": share["low"], "xh": share["high"], "y": y["value"], "yl": y["low"], "yh": y["high"],
        "answer": point["answer"], "text": point["asked"],
    }  # fmt: skip


def _chart(
    id: str, dots: list[_Dot], axes: _Axes, chosen: set[int], channels: Mapping[str, int], unpruned: float,
    lines: Sequence[tuple[float, str]], finished: Sequence[dict[str, Any]], failed: int,
) -> Chart:  # fmt: skip
    dots.sort(key=lambda dot: dot.trial.index)
    more = axes.x_title == "NCR"
    best = _unbeaten(dots, axes.higher, more)
    marks = [_CHOSEN if d.trial.index in chosen else _BEST if d.trial.index in best else _TRIED for d in dots]
    kept = [unpruned, *(end for each in finished for end in (each["yl"], each["yh"]))]
    kept += [dot.y for dot, mark in zip(dots, marks, strict=True) if mark == _CHOSEN]
    y_range, hidden = _y_range([dot.y for dot in dots], kept, axes.higher)
    x_values = [dot.x for dot in dots] + [x for x, _ in lines]
    x_values += [each[end] for each in finished for end in ("xl", "xh")]
    data = {
        "kind": "trials",
        "x": [_short(dot.x) for dot in dots],
        "y": [_short(dot.y) for dot in dots],
        "marks": marks,
        "told": [_told(dot, axes, mark) for dot, mark in zip(dots, marks, strict=True)],
        "groups": list(channels),
        "channels": list(channels.values()),
        "widths": [_widths(dot, channels) for dot in dots],
        "xRange": _padded(min(x_values), max(x_values)),
        "yRange": y_range,
        "xTitle": axes.x_title,
        "yTitle": axes.y_title,
        "xTimes": not more,
        "percent": axes.percent,
        "best": sorted(((_short(d.x), _short(d.y)) for d in dots if d.trial.index in best), reverse=more),
        "unpruned": unpruned,
        "lines": [{"x": x, "text": text} for x, text in lines],
        "finished": list(finished),
    }
    keys = [Key("dot", "trial"), Key("dot best", "no other is both better and cheaper"), Key("dot chosen", "chosen")]
    keys += [Key("line dotted", "unpruned"), *([Key("line dashed", "bound")] if lines else [])]
    if finished:
        keys.append(Key("cross", "finished, on test, with 95 % intervals"))
    notes = ["Dots are scores on validation examples before fine-tuning."]
    notes += [f"{hidden} that score lower are not drawn; the table has them."] if hidden else []
    notes += [f"{failed} could not be measured and have no place here."] if failed else []
    return Chart(
        id=id,
        title=f"{len(dots)} trials: quality against {axes.x_title.partition(',')[0]}",
        alt=_alt(dots, axes, marks, len(best)),
        data=data,
        keys=tuple(keys),
        notes=tuple(notes),
        table=_table(dots, axes, marks, channels),
    )


def _widths(dot: _Dot, channels: Mapping[str, int]) -> list[int]:
    """Of each group; a plan does not name one that keeps all its channels."""
    widths = dot.trial.candidate.plan.widths
    return [widths.get(name, most) for name, most in channels.items()]


def _unbeaten(dots: Sequence[_Dot], higher: bool, more: bool) -> set[int]:
    """The trials that no other beats in both figures."""
    found: set[int] = set()
    reach = None
    # The cheapest first, of equals the best; whoever is better than all cheaper ones is on the front.
    for dot in sorted(dots, key=lambda d: (-d.x if more else d.x, -d.y if higher else d.y, d.trial.index)):
        worth = dot.y if higher else -dot.y
        if reach is None or worth > reach:
            found.add(dot.trial.index)
            reach = worth
    return found


def _y_range(values: Sequence[float], kept: Sequence[float], higher: bool) -> tuple[tuple[float, float], int]:
    """From the worst that is drawn to the best, and how many are left out: those far below three quarters of all."""
    sign = 1 if higher else -1
    ranked = sorted((sign * value for value in values), reverse=True)
    top = max([ranked[0], *(sign * each for each in kept)])
    least = min([ranked[(len(ranked) * 3 - 1) // 4], *(sign * each for each in kept)])
    # What is a little below is drawn as well.
    edge = max(ranked[-1], top - 2 * (top - least)) if top > least else ranked[-1]
    edge = min(edge, least)
    low, high = _padded(edge, top)
    hidden = sum(each < low for each in ranked)
    return ((low, high) if higher else (-high, -low)), hidden


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or 0.02 * max(abs(high), 1e-9)
    return low - room, high + room


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _told(dot: _Dot, axes: _Axes, mark: int) -> list[str]:
    """What stands under the picture while a trial is looked at; its widths follow."""
    candidate = dot.trial.candidate
    return [
        f"Trial {dot.trial.index}" + ("", ", none beats it", ", chosen")[mark],
        axes.show(dot.y),
        f"{axes.cost} {format_figure(dot.latency)}x" + (f" ({dot.cost})" if dot.cost else ""),
        f"heap {format_figure(dot.memory)}x",
        f"file {format_bytes(candidate.bytes)}"
        + ("" if candidate.precision == "fp32" else f" of {candidate.precision}"),
        f"NCR {candidate.ncr:.2f}",
        f"reward {dot.trial.reward:.3f}",
    ]


def _alt(dots: Sequence[_Dot], axes: _Axes, marks: Sequence[int], unbeaten: int) -> str:
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    chosen = [dot for dot, mark in zip(dots, marks, strict=True) if mark == _CHOSEN]
    text = (
        f"{len(dots)} trials: {axes.x_title} from {format_figure(min(xs))} to {format_figure(max(xs))}, "
        f"{axes.y_title} from {axes.show(min(ys))} to {axes.show(max(ys))}; {unbeaten} that no other beats in both."
    )
    for dot in chosen:
        text += f" Chosen: trial {dot.trial.index}, {axes.show(dot.y)} at {format_figure(dot.x)}."
    return text


def _table(dots: Sequence[_Dot], axes: _Axes, marks: Sequence[int], channels: Mapping[str, int]) -> Table:
    words: tuple[Cell, ...] = ("", "none beats it", Pill("chosen", "good"))
    head = ("trial", "score", axes.cost, "share", "heap, share", "file", "NCR", "reward", "widths", "")
    rows = tuple(
        (
            str(dot.trial.index),
            axes.show(dot.y),
            dot.cost,
            f"{format_figure(dot.latency)}x",
            f"{format_figure(dot.memory)}x",
            format_bytes(dot.trial.candidate.bytes),
            f"{dot.trial.candidate.ncr:.2f}",
            f"{dot.trial.reward:.3f}",
            "-".join(str(width) for width in _widths(dot, channels)),
            words[mark],
        )
        for dot, mark in zip(dots, marks, strict=True)
    )
    return Table(f"All {len(dots)} trials", head, rows, words=(8, 9))

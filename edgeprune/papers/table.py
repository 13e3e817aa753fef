"""The tables of a bench: for the terminal, for a README (Markdown), for a spreadsheet (CSV).

What is missing is shown as "–" (in CSV as an empty field), never as 0.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.papers.published import Figure, Published, published_row
from edgeprune.papers.records import NCR_MET, Agents, Bench, Cell, Searched, in_order
from edgeprune.papers.statistics import Range, Spread, mean_range, paired_range, spread, welch_range

MISSING = "–"
_OURS = "edgeprune"
_NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}

#: Column heads; lines are the terminal's.
_PAPER = ("method", "n", "error\npoints", "layers", "NCR", "MACs %", "search\ns", "tuning\ns", "agent\nzeros%")
_EVALS = ("method", "n", "reward", "95 % interval", "edgeprune\n>/=/<", "edgeprune\nminus it", "95 % interval")
_SPARSITY = ("agent", "n", "reward", "95 % interval", "zeros %")
#: Longer names and layers take two lines of a terminal.
_CELL_WIDTH = 11


class Row(NamedTuple):
    """A line of a table; `printed` is what a paper says of the line above."""

    cells: tuple[str, ...]
    printed: bool = False


def paper_table(bench: Bench) -> Table:
    """Per method the measured row and, under it, the published one; below, what they rest on. Fits 80 columns."""
    title = f"{display_name(bench.data)}, {'-'.join(map(str, bench.net))}"
    return rich_table(title, _PAPER, _paper_rows(bench), _paper_notes(bench), left=(0, 3))


def paper_markdown(bench: Bench) -> str:
    """The same rows and notes as `paper_table`."""
    return markdown_table(_PAPER, _paper_rows(bench), _paper_notes(bench), left=(0, 3))


def paper_csv(bench: Bench) -> str:
    """A row per method, figures unrounded, measured and published side by side."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    measured = ("method", "seeds", "layers", "ncr_target", "ncr_missed_seeds", "criterion", "repair")
    spreads = tuple(f"{name}_{part}" for name, _ in _FIGURES for part in ("mean", "std"))
    printed = ("error_mean", "error_std", "layers", "ncr_mean", "ncr_std", "flops_percent", "seconds_mean",
               "seconds_std", "agent_sparsity_percent_mean", "agent_sparsity_percent_std")  # fmt: skip
    rows.writerow((*measured, *spreads, *(f"published_{name}" for name in printed)))
    for method in bench.methods:
        cells, row = bench.of(method), _published(bench, method)
        found: list[object] = [method, len(cells), _layers(cells), _distinct(cell.ncr_target for cell in cells)]
        found.append(sum(cell.missed for cell in cells) if cells else None)
        found.extend((_distinct(cell.criterion for cell in cells), _distinct(cell.repair for cell in cells)))
        for _, figure in _FIGURES:
            found.extend(_pair(_over(cells, figure)))
        if row is not None:
            found.extend((*_pair(row.error), row.layers, *_pair(row.ncr), row.flops, *_pair(row.seconds)))
            found.extend(_pair(row.sparsity))
        rows.writerow(found + [None] * (len(measured) + len(spreads) + len(printed) - len(found)))
    return stream.getvalue()


def evals_table(bench: Bench) -> Table | None:
    """The reward each method reached with equally many evaluations; None where this was not compared."""
    if bench.evals is None:
        return None
    title = f"Best reward after {bench.evals.budget:,} evaluations"
    return rich_table(title, _EVALS, _evals_rows(bench), _evals_notes(bench))


def evals_markdown(bench: Bench) -> str:
    """The same as `evals_table`; empty where this was not compared."""
    return "" if bench.evals is None else markdown_table(_EVALS, _evals_rows(bench), _evals_notes(bench))


def sparsity_table(bench: Bench) -> Table | None:
    """Agents with and without the proximal step, and the difference; None where this was not tried."""
    if bench.sparsity is None:
        return None
    title = "Agents with and without the proximal step"
    return rich_table(title, _SPARSITY, _sparsity_rows(bench), [sparsity_line(bench)])


def sparsity_markdown(bench: Bench) -> str:
    """The same as `sparsity_table`; empty where this was not tried."""
    return "" if bench.sparsity is None else markdown_table(_SPARSITY, _sparsity_rows(bench), [sparsity_line(bench)])


def sparsity_line(bench: Bench) -> str:
    """What the proximal step does to the final reward, with Welch's interval; empty where this was not tried."""
    if bench.sparsity is None:
        return ""
    penalty, none = bench.sparsity.penalty.rewards, bench.sparsity.none.rewards
    found = welch_range(penalty, none)
    text = f"The proximal step changes the final reward by {_zero(found.value, 4):+.4f}"
    if found.interval is None:
        return f"{text}; {len(penalty)} and {len(none)} runs are too few for an interval."
    low, high = found.interval
    verdict = "no difference shown" if low <= 0 <= high else "higher" if low > 0 else "lower"
    return f"{text} (95 % Welch interval {low:+.4f} to {high:+.4f}, {len(penalty)} and {len(none)} runs): {verdict}."


def display_name(data: str) -> str:
    """A data set's name as people write it: `fashion-mnist` -> `Fashion-MNIST`."""
    return _NAMES.get(data, data)


_FIGURES: tuple[tuple[str, Callable[[Cell], float | None]], ...] = (
    ("error", lambda cell: cell.error),
    ("accuracy", lambda cell: cell.accuracy),
    ("accuracy_before", lambda cell: cell.accuracy_before),
    ("ncr", lambda cell: cell.ncr),
    ("macs_percent", lambda cell: 100 * cell.macs_share),
    ("search_seconds", lambda cell: cell.search_seconds),
    ("finetune_seconds", lambda cell: cell.finetune_seconds),
    ("agent_sparsity_percent", lambda cell: None if cell.agent_sparsity is None else 100 * cell.agent_sparsity),
    ("evaluations", lambda cell: float(cell.evaluations)),
    ("method_epochs", lambda cell: float(cell.method_epochs)),
)
_FIGURE = dict(_FIGURES)


def _paper_rows(bench: Bench) -> list[Row]:
    rows = []
    for method in bench.methods:
        cells = bench.of(method)
        missed = "*" if any(cell.missed for cell in cells) else ""
        rows.append(
            Row(
                (
                    method,
                    str(len(cells)),
                    _shown(_over(cells, _FIGURE["error"]), 2),
                    _layers(cells) or MISSING,
                    _shown(_over(cells, _FIGURE["ncr"]), 2) + missed,
                    _macs(_over(cells, _FIGURE["macs_percent"])),
                    _seconds(_over(cells, _FIGURE["search_seconds"])),
                    _seconds(_over(cells, _FIGURE["finetune_seconds"])),
                    _zeros(_over(cells, _FIGURE["agent_sparsity_percent"])),
                )
            )
        )
        row = _published(bench, method)
        if row is not None:
            rows.append(Row(_printed_cells(row), printed=True))
    return rows


def _printed_cells(row: Published) -> tuple[str, ...]:
    """The digits that are printed there, whose number differs from row to row."""
    error, ncr = (_shown(each, 2) for each in (row.error, row.ncr))
    seconds, sparsity = (_digits(each) for each in (row.seconds, row.sparsity))
    flops = MISSING if row.flops is None else f"{row.flops:g}"
    return ("published†", "", error, row.layers or MISSING, ncr, flops, seconds, MISSING, sparsity)


def _paper_notes(bench: Bench) -> list[str]:
    baselines = bench.baselines
    shares = _shown(spread([100 * each.accuracy for each in baselines]), 2)
    lengths = " or ".join(f"{each:,}" for each in sorted({each.epochs for each in baselines})) or MISSING
    notes = [
        f"Unpruned test accuracy {shares} %, {len(baselines)} of {len(bench.seeds)} seeds, {lengths} epochs; "
        f"fine-tuning {bench.finetune_epochs:,} epochs; {_made_on(bench)}.",
        "Mean ± standard deviation over n seeds. Error: points of test accuracy lost after fine-tuning; layers: the "
        "seed of median error; MACs: multiply-accumulates left; search and tuning (fine-tuning) in seconds.",
    ]
    rankings: dict[str, list[str]] = {}
    for cell in bench.cells:
        if cell.criterion:
            ranking = cell.criterion + (" with repair" if cell.repair else "")
            rankings.setdefault(ranking, []).append(cell.method)
    if rankings:
        listed = "; ".join(f"{name}: {', '.join(dict.fromkeys(methods))}" for name, methods in rankings.items())
        notes.append(f"Neurons are ranked by {listed}.")
    started = [method for method in bench.methods if len(bench.of(method)) < len(bench.seeds)]
    if started:
        listed = ", ".join(f"{method} {len(bench.of(method))} of {len(bench.seeds)} seeds" for method in started)
        notes.append(f"Not finished: {listed}.")
    missed = [cell for cell in bench.cells if cell.missed]
    if missed:
        low, high = (abs(100 * share - 100) for share in NCR_MET)
        listed = ", ".join(dict.fromkeys(f"{cell.method} {cell.ncr:.2f} of {cell.ncr_target:.2f}" for cell in missed))
        notes.append(f"* misses the NCR asked for (by over {low:.0f} % below or {high:.0f} % above): {listed}.")
    if any(_published(bench, method) for method in bench.methods):
        notes.append(
            "† Wang et al., Mathematics 2023, 11, 338. Their FLOPS, in the column of MACs, is about 1/NCR, a ratio of "
            "neurons; their time, in that of the search, is another machine's; their unpruned accuracy is not printed."
        )
    return notes


def _made_on(bench: Bench) -> str:
    """Machines and, where cells are of several, versions."""
    machines = list(dict.fromkeys(cell.machine or bench.machine for cell in bench.cells)) or [bench.machine]
    versions = sorted({cell.edgeprune or "unknown" for cell in bench.cells})
    return " and ".join(machines) + (f"; cells of versions {', '.join(versions)}" if len(versions) > 1 else "")


def _evals_rows(bench: Bench) -> list[Row]:
    evals = bench.evals
    if evals is None:
        return []
    ours = evals.methods.get(_OURS)
    rows = []
    for name in in_order(set(evals.methods)):
        found = evals.methods[name]
        reached = mean_range(found.final)
        compared = (MISSING,) * 3
        if ours is not None and name != _OURS:
            difference = paired_range(ours.final, found.final)
            compared = (_counts(ours, found), f"{_zero(difference.value, 4):+.4f}", _interval(difference, "+.4f"))
        rows.append(Row((name, str(len(found.final)), f"{reached.value:.4f}", _interval(reached, ".4f"), *compared)))
    return rows


def _evals_notes(bench: Bench) -> list[str]:
    if bench.evals is None:
        return []
    return [
        f"Best reward after {bench.evals.budget:,} evaluations, mean over {len(bench.evals.seeds)} seeds with "
        "Student's t interval; >/=/<: seeds in which edgeprune is above, equal, below; its difference is paired by "
        "seed.",
    ]


def _counts(ours: Searched, theirs: Searched) -> str:
    """Seeds in which ours is above, equal and below: `3/1/1`."""
    signs = [
        0 if math.isclose(a, b, rel_tol=1e-9) else 1 if a > b else -1
        for a, b in zip(ours.final, theirs.final, strict=True)
    ]
    return "/".join(str(signs.count(sign)) for sign in (1, 0, -1))


def _sparsity_rows(bench: Bench) -> list[Row]:
    if bench.sparsity is None:
        return []
    agents: tuple[tuple[str, Agents], ...] = (("proximal", bench.sparsity.penalty), ("plain", bench.sparsity.none))
    rows = []
    for name, each in agents:
        reached, zeros = mean_range(each.rewards), spread([100 * share for share in each.sparsity])
        cells = (name, str(len(each.rewards)), f"{reached.value:.4f}", _interval(reached, ".4f"), _shown(zeros, 1))
        rows.append(Row(cells))
    return rows


def _published(bench: Bench, method: str) -> Published | None:
    return published_row(bench.data, method) if bench.published else None


def _over(cells: Sequence[Cell], figure: Callable[[Cell], float | None]) -> Spread | None:
    return spread([value for value in map(figure, cells) if value is not None])


def _layers(cells: Sequence[Cell]) -> str | None:
    """Of the seed with the median error (of two in the middle, the smaller)."""
    return sorted(cells, key=lambda cell: cell.error)[(len(cells) - 1) // 2].layers if cells else None


def _distinct(values: Iterable[object]) -> str:
    return " ".join(sorted({str(value) for value in values if value is not None}))


def _pair(found: Spread | Figure | None) -> tuple[float | None, float | None]:
    return (None, None) if found is None else (found[0], found[1])


def _shown(found: Spread | Figure | None, digits: int) -> str:
    """`0.20±0.16`; without a deviation the mean alone."""
    if found is None:
        return MISSING
    mean = f"{_zero(found[0], digits):.{digits}f}"
    return mean if found[1] is None else f"{mean}±{found[1]:.{digits}f}"


def _digits(found: Figure | None) -> str:
    if found is None:
        return MISSING
    return f"{found[0]:g}" if found[1] is None else f"{found[0]:g}±{found[1]:g}"


def _macs(found: Spread | None) -> str:
    return _shown(found, 1 if found is None or found.mean < 99.95 else 0)


def _zeros(found: Spread | None) -> str:
    """As the paper prints them: `96±0.7`."""
    if found is None:
        return MISSING
    return f"{found.mean:.0f}" if found.std is None else f"{found.mean:.0f}±{found.std:.1f}"


def _seconds(found: Spread | None) -> str:
    """Whole seconds from 10 on: a shared machine's times mean no more."""
    return _shown(found, 1 if found is None or found.mean < 10 else 0)


def _interval(found: Range, form: str) -> str:
    return MISSING if found.interval is None else f"{found.interval[0]:{form}} to {found.interval[1]:{form}}"


def _zero(value: float, digits: int) -> float:
    """`value` rounded, and never -0.0."""
    return round(value, digits) + 0.0


def rich_table(
    title: str, heads: Sequence[str], rows: Iterable[Row], notes: Sequence[str], left: Sequence[int] = (0,)
) -> Table:
    """For the terminal; columns of `left` stand left and may be folded."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        title=escape(title),
        title_justify="left",
        caption="\n" + escape("\n".join(notes)),
        caption_justify="left",
        caption_style="",
    )
    for index, head in enumerate(heads):
        justify: Literal["left", "right"] = "left" if index in left else "right"
        table.add_column(head, justify=justify, no_wrap=index not in left, overflow="fold")
    for row in rows:
        cells = [_folded(cell) if index in left else cell for index, cell in enumerate(row.cells)]
        cells[0] = escape(f" {cells[0]}" if row.printed else cells[0])
        table.add_row(*cells, style="dim" if row.printed else "")
    return table


def _folded(text: str) -> str:
    """Over more lines where needed, broken in front of a sign: `3072-1024`, `-1024`; `edgeprune`, `-noprox`."""
    lines = [""]
    for part in re.split(r"(?=[-@+])", text):
        if lines[-1] and len(lines[-1] + part) > _CELL_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def markdown_table(heads: Sequence[str], rows: Iterable[Row], notes: Sequence[str], left: Sequence[int] = (0,)) -> str:
    """For a README: a line break in a head is a space."""
    lines = [
        [head.replace("\n", " ") for head in heads],
        ["---" if index in left else "--:" for index in range(len(heads))],
        *(row.cells for row in rows),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    # A "*" in front of a line would make it a list.
    return table + "\n\n" + "\n\n".join(note.replace("*", "\\*") for note in notes) + "\n"

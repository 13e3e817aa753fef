"""What the terminal shows of a finished run, and of a front: the command `run` at its end, and `runs show` later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from edgeprune.pipeline.bounds import FRONT, PICTURE, REPORT
from edgeprune.report.checks import budget_lines
from edgeprune.report.front import front_lines, front_table, unpruned_line
from edgeprune.report.table import (
    drawback_lines,
    input_line,
    layers_line,
    lower_lines,
    next_step,
    precisions_table,
    staying_lines,
    summary_table,
)


def show_front(front: Any, folder: Path, quiet: bool = False) -> None:
    """Print a front's table and what to know of its networks; `quiet` leaves the figures out."""
    console = Console(highlight=False, markup=False)
    if not quiet:
        console.print()
        console.print(front_table(front))
        console.print(unpruned_line(front), soft_wrap=True)
    for line in front_lines(front):
        console.print(line, soft_wrap=True)
    for point in front["points"]:
        if point["status"] != "impossible":
            console.print(f"{folder / point['file']}", soft_wrap=True)
    if not quiet:
        page = f"; {folder / REPORT}: a page of it" if (folder / REPORT).exists() else ""
        console.print(f"{folder / FRONT}: every figure; {folder / PICTURE}: a picture of it{page}", soft_wrap=True)


def show_run(result: Any, folder: Path, quiet: bool = False) -> None:
    """Print a run's table, its bounds, its files and the next step; `quiet` leaves all but bounds and files out."""
    console = Console(highlight=False, markup=False)
    if not quiet:
        console.print()
        console.print(summary_table(result))
        if (precisions := precisions_table(result)) is not None:
            console.print(precisions)
        for line in lower_lines(result):
            console.print(line, soft_wrap=True)
        console.print(f"layers {layers_line(result)}", soft_wrap=True)
        for line in staying_lines(result):
            console.print(line, soft_wrap=True)
        console.print(input_line(result), soft_wrap=True)
        if result["search"]["agent_sparsity"] is not None:
            console.print(f"agent sparsity {100 * result['search']['agent_sparsity']:.1f} %")
    for line in (*budget_lines(result), *drawback_lines(result)):
        console.print(line, soft_wrap=True)
    for item in (each for each in result["artifacts"] if each["exported"]):
        console.print(f"{folder / item['path']}", soft_wrap=True)
    if not quiet:
        page = f"; {folder / REPORT}: a page of it" if (folder / REPORT).exists() else ""
        console.print(f"{folder / 'result.json'}: every figure and raw sample{page}", soft_wrap=True)
        console.print(next_step(result, folder), soft_wrap=True)

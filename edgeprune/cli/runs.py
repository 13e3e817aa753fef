"""`edgeprune runs`: what runs there are, one of them again, two compared, their trials for other programs, removing."""

from __future__ import annotations

import json
import os
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgeprune.cli import completion
from edgeprune.cli.commands import Commands
from edgeprune.core.errors import EdgepruneError, UsageError
from edgeprune.core.plain import to_json
from edgeprune.core.store import RunFolder
from edgeprune.core.text import printable
from edgeprune.core.units import format_bytes
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.records.listed import Listed, RunsList
from edgeprune.pipeline.runs import find_run, list_runs, remove_run, resume_command, stand
from edgeprune.pipeline.stored import finished, finished_front
from edgeprune.pipeline.trialfiles import read_trials, write_csv, write_study

#: Lines of the log of an unfinished run that are shown.
_LAST = 5

_runs_dir = click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=RunConfig().runs_dir,
    show_default=True,
    metavar="DIR",
    help="where the run folders are",
)


@click.group("runs", cls=Commands)
def runs_group() -> None:
    """Runs that were made: list, show, compare, export, remove."""


@runs_group.command("list", epilog="Exit codes: 0 done, 1 the folder cannot be read.")
@_runs_dir
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of the table")
def list_command(runs_dir: Path, as_json: bool) -> int:
    """The runs, the newest first: how each stands, its latency beside the unpruned file's, its test score."""
    found = list_runs(runs_dir)
    plain = to_json(RunsList(runs=tuple(found)))
    if as_json:
        click.echo(json.dumps(plain, indent=1))
        return 0
    if not found:
        click.echo(f"there are no runs in {printable(str(runs_dir))}; next: edgeprune run", err=True)
        return 0
    # Not above: --json needs no table.
    from edgeprune.report.runs import runs_table  # noqa: PLC0415

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # Without a terminal there is no width to fold to, and whoever reads it wants whole words.
        console.width = 500
    console.print(runs_table(plain["runs"], datetime.now().astimezone()))
    remarks = [line for run in found if (line := _remark(run, runs_dir / run.name))]
    for line in ["", *remarks] if remarks else []:
        console.print(printable(line), soft_wrap=True)
    return 0


@runs_group.command("show", epilog="Exit codes: 0 done, 1 the run is damaged, 2 usage.")
@click.argument("name", shell_complete=completion.runs)
@_runs_dir
def show_command(name: str, runs_dir: Path) -> int:
    """Print what the run NAME printed at its end; of one that has not ended what is there."""
    folder = find_run(runs_dir, name)
    run = RunFolder(folder)
    from edgeprune.cli.outcome import show_front, show_run  # noqa: PLC0415 - as above

    known = stand(folder)
    if known.state == "running":
        _show_unfinished(known, folder)
    elif (front := finished_front(run)) is not None:
        show_front(front, folder)
    elif (result := finished(run)) is not None:
        show_run(result, folder)
    else:
        _show_unfinished(known, folder)
    return 0


@runs_group.command("rm", epilog="Exit codes: 0 done, 1 a folder cannot be removed, 2 usage, or a run goes on.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.runs)
@_runs_dir
@click.option("--yes", is_flag=True, help="do not ask")
def rm_command(names: tuple[str, ...], runs_dir: Path, yes: bool) -> int:
    """Remove runs with all that they left. One that goes on is refused."""
    folders = list(dict.fromkeys(find_run(runs_dir, name) for name in names))
    for folder in folders:
        if owner := stand(folder).owner:
            raise UsageError(f"run '{folder.name}' is in use by {owner}", "stop it, or wait for it to end")
    for folder in folders:
        sizes = [each.lstat().st_size for each in folder.rglob("*") if each.is_file()]
        what = f"{printable(str(folder))} ({len(sizes)} files, {format_bytes(sum(sizes))})"
        if not yes and not click.confirm(f"remove {what}?", err=True):
            click.echo(f"kept {folder}", err=True)
            continue
        remove_run(folder)
        click.echo(f"removed {what}")
    return 0


@runs_group.command("export", epilog="Exit codes: 0 done, 1 a file cannot be written, 2 usage.")
@click.argument("name", shell_complete=completion.runs)
@_runs_dir
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="a row a trial")
@click.option(
    "--optuna",
    "study_file",
    type=click.Path(path_type=Path),
    metavar="FILE.db",
    help="a study of Optuna's (SQLite), for its dashboard; needs the package optuna",
)
def export_command(name: str, runs_dir: Path, csv_file: Path | None, study_file: Path | None) -> int:
    """Write all trials of the run NAME for other programs. One that goes on has those that it made until now."""
    if csv_file is None and study_file is None:
        raise UsageError("nothing to write", "give --csv FILE, --optuna FILE.db, or both")
    folder = find_run(runs_dir, name)
    trials = read_trials(folder)
    if csv_file is not None:
        write_csv(trials, csv_file)
        click.echo(f"{csv_file}: {len(trials)} trials")
    if study_file is not None:
        write_study(trials, study_file, folder.name, _channels(folder))
        click.echo(f"{study_file}: {len(trials)} trials; next: optuna-dashboard sqlite:///{study_file}")
    return 0


@runs_group.command(
    "compare", epilog="Exit codes: 0 no regression, 1 damaged, 2 usage or not measured alike, 3 regression."
)
@click.argument("a", metavar="A", shell_complete=completion.runs)
@click.argument("b", metavar="B", shell_complete=completion.runs)
@_runs_dir
@click.option(
    "--profile",
    "gate_file",
    type=click.Path(path_type=Path),
    metavar="GATE.toml",
    help="how much worse each figure may be [the default gate of `edgeprune compare`]",
)
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON instead of the table")
def compare_command(a: str, b: str, runs_dir: Path, gate_file: Path | None, as_json: bool) -> int:
    """Whether the run B came out worse than the run A, as recorded; see `edgeprune compare`."""
    # Metrics bring scikit-learn, which takes a second that --help should not.
    from edgeprune.cli.compare import show  # noqa: PLC0415
    from edgeprune.pipeline.compare import compare_runs  # noqa: PLC0415
    from edgeprune.profilers.gate import default_gate, read_gate  # noqa: PLC0415

    gate = default_gate() if gate_file is None else read_gate(gate_file)
    found = compare_runs(find_run(runs_dir, a), find_run(runs_dir, b), gate)
    show(found, as_json=as_json)
    return 3 if found.answer == "regression" else 0


def _remark(run: Listed, folder: Path) -> str:
    """What to know of a run beside its row, and what to type; "" where the row says it all."""
    if run.state == "running":
        stage = f", in stage {run.stage}" if run.stage else ""
        return f"{run.name}: goes on{stage} ({run.owner}); edgeprune watch {folder} shows it"
    if run.outcomes:
        return ""
    line = f"{run.name}: {run.state}"
    if run.stage and run.state != "damaged":
        line += f" in stage {run.stage}"
    if run.why:
        line += f": {run.why}"
    if run.state in ("killed", "interrupted", "failed"):
        return f"{line}; continue with: {resume_command(folder)}"
    return f"{line}; edgeprune runs rm {run.name} removes it" if run.state == "damaged" else line


def _show_unfinished(run: Listed, folder: Path) -> None:
    asked = f"{run.model} on {run.data}, {run.device}" if run.model else "its settings are not written yet"
    lines = [f"{run.name}: {asked}"]
    if (folder / "trials.sqlite").is_file():
        lines.append(_told_trials(folder))
    there = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    lines.append(f"there: {', '.join(there)}")
    for line in lines:
        click.echo(printable(line))
    log = folder / "run.log"
    if log.is_file():
        click.echo(f"the end of {log}:")
        with log.open(encoding="utf-8", errors="replace") as stream:
            for line in deque(stream, maxlen=_LAST):
                click.echo(f"  {printable(line.rstrip())}")
    click.echo(printable(_remark(run, folder)))


def _told_trials(folder: Path) -> str:
    try:
        trials = read_trials(folder)
    except EdgepruneError as error:
        return error.message
    best = max(trials, key=lambda trial: trial.reward)
    score, ncr = best.candidate.accuracy, best.candidate.ncr
    return f"{len(trials)} trials; the best by its reward: trial {best.index}, score {score:.4f}, NCR {ncr:.2f}"


def _channels(folder: Path) -> dict[str, int]:
    """The channels of each group in the unpruned network, as far as a finished run, or one of its bounds, tells."""
    run = RunFolder(folder)
    front = finished_front(run)
    points: list[dict[str, Any]] = [] if front is None else front["points"]
    inside = next((RunFolder(folder / point["path"]) for point in points if point["path"] is not None), run)
    result = finished(inside) if front is None or inside is not run else None
    return {} if result is None else {layer["name"]: layer["channels"] for layer in result["compressed"]["layers"]}

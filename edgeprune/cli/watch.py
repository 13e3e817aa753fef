"""`edgeprune watch`: a run that goes on in another terminal, from its files alone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from edgeprune.cli import completion
from edgeprune.cli.start import INTERRUPTED
from edgeprune.core.errors import StorageError
from edgeprune.core.measurement import Measurement
from edgeprune.core.text import printable
from edgeprune.core.units import format_figure
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.following import Best, Follower, Look
from edgeprune.pipeline.records.status import Step
from edgeprune.pipeline.runs import find_run, resume_command

#: Seconds between two looks.
EVERY_S = 1.0
#: Looks in a row that must find nobody at a run before it counts as dead: one may fall between two owners.
_SURE = 3
_WIDTH = 20


@click.command("watch", epilog="Exit codes: the run's own; 1 where it died, 2 usage, 130 where watching was stopped.")
@click.argument("run", shell_complete=completion.runs)
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=RunConfig().runs_dir,
    show_default=True,
    metavar="DIR",
    help="where the run folders are",
)
def watch_command(run: str, runs_dir: Path) -> int:
    """Follow RUN, a name or a folder, until it ends. It is only read; Ctrl-C ends watching, not the run."""
    folder = find_run(runs_dir, run)
    console = Console(highlight=False, markup=False, emoji=False)
    with contextlib.closing(Follower(folder)) as follower:
        try:
            last = _follow(follower, console)
        except KeyboardInterrupt:
            click.echo("stopped watching; the run goes on", err=True)
            return INTERRUPTED
    if last is None:
        click.echo(f"{printable(folder.name)} is gone: it was refused before it began, or removed", err=True)
        return 1
    return _tell_end(last, folder)


def _follow(follower: Follower, console: Console) -> Look | None:
    """Show the run until it has ended; the last look at it, None where its folder has gone."""
    dead, before = 0, ""
    with contextlib.ExitStack() as stack:
        live = None
        while True:
            if not follower.folder.is_dir():
                return None
            look = follower.look()
            dead = 0 if look.run.state != "killed" else dead + 1
            if look.run.state != "running" and dead in (0, _SURE):
                return look
            if console.is_terminal:
                live = live or stack.enter_context(Live(console=console, transient=True, auto_refresh=False))
                lines = (Text(line, no_wrap=True, overflow="ellipsis") for line in _lines(look))
                live.update(Group(*lines), refresh=True)
            elif (line := _line(look)) != before:
                click.echo(line)
                before = line
            time.sleep(EVERY_S)


def _lines(look: Look) -> list[str]:
    """What a terminal shows, a line each."""
    run, step = look.run, None if look.status is None else look.status.step
    lines = [f"{run.name}: {run.model} on {run.data}, {run.device}" if run.model else run.name]
    lines.append(f"stage    {_stage(look)}")
    if step is not None:
        lines.append(f"step     {_bar(step)}")
        if step.note:
            lines.append(f"         {step.note}")
    if (left := look.left_s) is not None:
        lines.append(f"left     {_span(left)} of this step")
    if look.trials:
        lines.append(f"trials   {look.trials}" + (f", {look.failed} not measured" if look.failed else ""))
        lines += [f"best     {_best(each)}" for each in look.best]
    lines.append(f"run by   {run.owner or 'nobody'}; Ctrl-C ends watching, not the run")
    return [printable(line) for line in lines]


def _line(look: Look) -> str:
    """The same on one line that only changes where there is news, for a log."""
    parts = [f"{look.run.name}: {look.run.stage or 'start'}"]
    if look.status is not None and look.status.step is not None:
        parts.append(look.status.step.title)
    if look.trials:
        parts.append(f"{look.trials} trials")
        parts += [f"best {_best(each)}" for each in look.best]
    return printable("; ".join(parts))


def _stage(look: Look) -> str:
    stage = look.run.stage
    place = f" ({look.stages.index(stage) + 1} of {len(look.stages)})" if stage in look.stages else ""
    since = "" if look.status is None else f", the run began {_span(look.status.seconds)} before"
    return f"{stage or 'start'}{place}{since}"


def _bar(step: Step) -> str:
    if step.total is None or step.total <= 0:
        return f"{step.title}: {step.done:g}"
    full = round(_WIDTH * min(1.0, max(0.0, step.done / step.total)))
    return f"{step.title} [{'#' * full}{'.' * (_WIDTH - full)}] {step.done:g} of {step.total:g}"


def _best(best: Best) -> str:
    within = f"within {best.asked}" if best.asked else "by reward"
    if (trial := best.trial) is None:
        return f"{within}: none yet"
    cost = trial.candidate.cost
    latency = f", latency {format_figure(cost.quotient)}x" if isinstance(cost, Measurement) else ""
    found = trial.candidate
    return f"{within}: trial {trial.index}, score {found.accuracy:.4f}{latency}, NCR {found.ncr:.2f}"


def _span(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _tell_end(look: Look, folder: Path) -> int:
    run = look.run
    if run.state == "killed":
        stage = f" in stage {run.stage}" if run.stage else ""
        line = f"{run.name} died{stage}: {run.why}, and left no result; continue with: {resume_command(folder)}"
        click.echo(printable(line), err=True)
        return 1
    if run.state in ("damaged", "other version"):
        raise StorageError(run.why, "what became of the run cannot be told")
    line = f"{run.name}: {run.state}"
    if run.outcomes:
        # It takes longer to load than the first look should wait for.
        from edgeprune.core.plain import to_json  # noqa: PLC0415
        from edgeprune.report.runs import outcome_lines  # noqa: PLC0415

        for each in outcome_lines(to_json(run)):
            click.echo(printable(each))
        line += f"; edgeprune runs show {folder} prints all of it"
    elif run.why:
        line += f": {run.why}"
    if run.state in ("failed", "interrupted"):
        line += f"; continue with: {resume_command(folder)}"
    click.echo(printable(f"{line}; the run's exit status is {look.exit_code}"))
    return look.exit_code

"""`edgeprune report`: finished runs as a page to read, to print and to send on."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.core.units import format_bytes


@click.command("report", epilog="Exit codes: 0 done, 1 failed here, 2 usage, or a run that is unfinished or damaged.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN...]", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.html", help="where to")
def report_command(runs: tuple[Path, ...], out: Path) -> int:
    """Write one HTML file of finished runs (folders, as runs/NAME), which needs nothing beside it and no network.

    It holds a summary, what was before and after with intervals and verdicts, all trials, how the search went, widths,
    latencies, the device, and how to repeat each run. Several runs stand side by side.
    """
    # numpy, scipy and templates take half a second to load, which --help should not.
    from edgeprune.pipeline.report import write_report  # noqa: PLC0415

    size = write_report(runs, out)
    click.echo(f"{out}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}, {format_bytes(size)}; open it in a browser")
    return 0

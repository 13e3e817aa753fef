"""`edgeprune export`: a network's files as it is, at other precisions too, proven on a device."""

from __future__ import annotations

import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edgeprune.cli.run import options
from edgeprune.cli.screen import watching
from edgeprune.core.plain import to_json
from edgeprune.devices import find_device, open_session
from edgeprune.pipeline.config import make_config
from edgeprune.pipeline.records.exported import RECORD
from edgeprune.report.table import exports_lines, files_table, lower_lines

#: Settings of a run that mean something without pruning.
_NAMES = (
    "data", "data_dir", "weights", "preprocessing", "task", "metric", "runtime", "formats", "precision", "threads",
    "seed", "max_drop", "train_epochs", "processes",
)  # fmt: skip


@click.command(
    "export",
    epilog="Exit codes: 0 done, 1 failed here, 2 usage, 3 a file is missing or loses too much, 4 device trouble, "
    "130 interrupted.",
)
@click.argument("model")
@partial(options, names=_NAMES)
@click.option("--device", default="local", show_default=True, metavar="NAME", help="where every file is validated")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="a new folder for the files")
@click.option("--json", "as_json", is_flag=True, help="print export.json instead of the table")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def export_command(model: str, device: str, out: Path, as_json: bool, quiet: bool, **values: Any) -> int:
    """Export MODEL (as --model of a run) without pruning it, and validate every file beside the float32 one."""
    given = {name: value for name, value in values.items() if value is not None}
    spec = find_device(device)
    usual = {"runtime": spec.runtime or "onnxruntime", "threads": spec.threads or 1}
    config = make_config({**usual, **given, "model": model, "device": spec.name}, "the options")
    # torch takes seconds to load, which --help should not.
    from edgeprune.pipeline.exporting import export  # noqa: PLC0415

    # The user's model and data may print: stdout is for our result alone.
    with contextlib.redirect_stdout(sys.stderr), open_session(spec) as session:
        found = to_json(export(config, out, session, watching(quiet=quiet or as_json)))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return 0 if found["met"] else 3
    console = Console(highlight=False, markup=False)
    if not quiet:
        console.print()
        console.print(files_table(found))
    for line in (*lower_lines(found), *exports_lines(found)):
        console.print(line, soft_wrap=True)
    console.print(f"{out / found['recommended']}: the fastest that loses no more than may be lost", soft_wrap=True)
    if not quiet:
        console.print(f"{out / RECORD}: every figure and raw sample", soft_wrap=True)
    return 0 if found["met"] else 3

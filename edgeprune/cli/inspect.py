"""`edgeprune inspect`: what a network is made of, and what a run could reach at best."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from edgeprune.cli import completion
from edgeprune.cli.screen import watching
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.runtimes import RuntimeName
from edgeprune.devices import find_device, open_session


@click.command("inspect", epilog="Exit codes: 0 done, 1 failed here, 2 usage, 4 device trouble, 130 interrupted.")
@click.argument("model", shell_complete=completion.models)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    metavar="DATA",
    shell_complete=completion.data_sets,
    help="as in a run; it tells the input",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="where the standard data sets' files are"
)
@click.option("--task", metavar="TASK", help="as in a run [worked out]")
@click.option(
    "--device",
    metavar="NAME",
    shell_complete=completion.devices,
    help="measure every group at its narrowest there; local is this machine",
)
@click.option("--runtime", type=click.Choice(get_args(RuntimeName)), help="which one [the device's, or onnxruntime]")
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="threads of the runtime [the device's, or 1]")
@click.option("--prune-inputs/--no-prune-inputs", default=None, help="as in a run")
@click.option("--prune-frozen", is_flag=True, help="as in a run")
@click.option("--max-sparsity", type=float, default=0.9, show_default=True, metavar="SHARE", help="as in a run")
@click.option("--multiple-of", type=click.IntRange(1), metavar="N", help="as in a run [the runtime's block]")
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON instead of the tables")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def inspect_command(
    model: str, device: str | None, runtime: RuntimeName | None, threads: int | None, as_json: bool, quiet: bool,
    **values: Any,
) -> int:  # fmt: skip
    """List the layers of MODEL (as --model of a run), the groups of channels that can go, and why others stay."""
    # torch takes seconds to load, which --help should not.
    from edgeprune.pipeline.inspect import inspect, inspect_config  # noqa: PLC0415

    spec = find_device(device or "local")
    settings = MeasureSettings(runtime or spec.runtime or "onnxruntime", threads or spec.threads or 1)
    given = {key: value for key, value in values.items() if value is not None}
    config = inspect_config({"model": model, "device": spec.name, "runtime": settings.runtime, **given})
    screen = watching(quiet=quiet or as_json)
    # The user's model and data may print: stdout is for our result alone.
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        session = stack.enter_context(open_session(spec)) if device is not None else None
        found = to_json(inspect(config, screen, session, settings))
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return 0
    from edgeprune.report.inspection import best_lines, group_table, layer_table  # noqa: PLC0415

    console = Console(highlight=False, markup=False)
    console.print(layer_table(found))
    console.print()
    console.print(group_table(found))
    console.print()
    for line in best_lines(found):
        console.print(line, soft_wrap=True)
    return 0

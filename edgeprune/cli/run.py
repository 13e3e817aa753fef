"""`edgeprune run`: every option is a field of RunConfig, in the order and with the help that it has there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource
from rich.console import Console

import edgeprune
from edgeprune.cli.screen import watching
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.bounds import FRONT, PICTURE, REPORT
from edgeprune.pipeline.config import RunConfig, make_config, read_toml, refuse_units, to_plain
from edgeprune.pipeline.stored import repeated, stored_config
from edgeprune.report.checks import budget_lines
from edgeprune.report.front import front_lines, front_table, unpruned_line
from edgeprune.report.table import (
    drawback_lines,
    input_line,
    layers_line,
    left_out_lines,
    next_step,
    precisions_table,
    staying_lines,
    summary_table,
)

Command = Callable[..., Any]


class _Number(click.types.FloatParamType):
    """A float; of "1%" and "3x" it says how to write them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if param is not None and param.name is not None:
            refuse_units(param.name, value)
        return super().convert(value, param, ctx)


def _options(command: Command) -> Command:
    """One click option for every field, types and choices taken from its annotation."""
    hints = typing.get_type_hints(RunConfig)
    for field in reversed(dataclasses.fields(RunConfig)):
        kind = hints[field.name]
        if get_origin(kind) in (typing.Union, types.UnionType):
            parts = [part for part in get_args(kind) if part is not type(None)]
            # A number, or several of them with commas.
            kind = str if str in parts else parts[0]
        flag = "--" + field.name.replace("_", "-")
        extra: dict[str, Any] = {"default": None, "help": _help(field), "metavar": field.metadata["metavar"] or None}
        if kind is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        elif get_origin(kind) is Literal:
            extra |= {"type": click.Choice(get_args(kind)), "metavar": None}
        else:
            extra["type"] = {Path: click.Path(path_type=Path), float: _Number()}.get(kind, kind)
        command = click.option(flag, field.name, **extra)(command)
    return command


def _help(field: dataclasses.Field[Any]) -> str:
    text = str(field.metadata["help"])
    return text if field.default is None else f"{text} [{field.default}]"


@click.command(
    "run", epilog="Exit codes: 0 done, 1 failed here, 2 usage, 3 budget not met, 4 device trouble, 130 interrupted."
)
@_options
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a TOML file of these options, or the result.json of a run to repeat; flags win",
)
@click.option(
    "--resume", metavar="NAME", help="continue an interrupted run, or give a finished one more of what it had"
)
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
@click.option(
    "--json", "as_json", is_flag=True, help="print result.json (of several bounds front.json) instead of the table"
)
@click.pass_context
def run_command(
    context: click.Context, /, config_file: Path | None, resume: str | None, quiet: bool, as_json: bool, **values: Any
) -> int:
    """Prune, fine-tune, export and validate a network. Without options: handwritten digits on this machine."""
    given = {
        key: value for key, value in values.items() if context.get_parameter_source(key) != ParameterSource.DEFAULT
    }
    if config_file is not None:
        if config_file.suffix == ".json":
            # Where it is written, and under which name, changes nothing.
            given = repeated(config_file, changed=bool(given.keys() - {"name", "runs_dir"})) | given
        else:
            given = read_toml(config_file) | given
    if resume is not None:
        runs = Path(given.get("runs_dir", RunConfig().runs_dir))
        stored = to_plain(stored_config(RunFolder.existing(runs, resume)))
        given = stored | given | {"name": resume, "runs_dir": runs}
    config = make_config(given, "the options")
    screen = watching(quiet=quiet or as_json)
    # The user's model and data may print: stdout is for our result alone.
    with contextlib.redirect_stdout(sys.stderr):
        if config.front is not None:
            found = edgeprune.front(config, screen, resume=resume is not None)
            # A finished front may lie in a folder that may only be read.
            if not (picture := found.folder / PICTURE).exists():
                # Drawing takes half a second to import, which only a front should pay.
                from edgeprune.report.front_figure import draw_front  # noqa: PLC0415

                draw_front(found.front, picture)
        else:
            outcome = edgeprune.run(config, screen, resume=resume is not None)
        _write_page(outcome.folder if config.front is None else found.folder)
    if config.front is not None:
        if as_json:
            click.echo(json.dumps(found.front, indent=1))
        else:
            _show_front(found.front, found.folder, quiet)
        return found.exit_code
    if as_json:
        click.echo(json.dumps(outcome.result, indent=1))
    else:
        _show(outcome.result, outcome.folder, quiet)
    return outcome.exit_code


def _write_page(folder: Path) -> None:
    """The run's report, unless it is there, or the folder of a run that was finished before may only be read."""
    if not (folder / REPORT).exists() and os.access(folder, os.W_OK):
        # What only the page needs takes a moment to load, which --help should not.
        from edgeprune.pipeline.report import write_report  # noqa: PLC0415

        write_report([folder], folder / REPORT)


def _show_front(front: Any, folder: Path, quiet: bool) -> None:
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


def _show(result: Any, folder: Path, quiet: bool) -> None:
    console = Console(highlight=False, markup=False)
    if not quiet:
        console.print()
        console.print(summary_table(result))
        if (precisions := precisions_table(result)) is not None:
            console.print(precisions)
        for line in left_out_lines(result):
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

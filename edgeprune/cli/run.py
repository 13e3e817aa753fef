"""`edgeprune run`: every option is a field of RunConfig, in the order and with the help that it has there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource

import edgeprune
from edgeprune.cli.outcome import show_front, show_run
from edgeprune.cli.screen import watching
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.bounds import PICTURE
from edgeprune.pipeline.config import RunConfig, make_config, read_toml, refuse_units, to_plain
from edgeprune.pipeline.stored import repeated, stored_config

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
    if config.front is not None:
        if as_json:
            click.echo(json.dumps(found.front, indent=1))
        else:
            show_front(found.front, found.folder, quiet)
        return found.exit_code
    if as_json:
        click.echo(json.dumps(outcome.result, indent=1))
    else:
        show_run(outcome.result, outcome.folder, quiet)
    return outcome.exit_code

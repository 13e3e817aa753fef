"""`edgeprune run`: every option is a field of RunConfig, in the order and with the help that it has there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import types
import typing
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource

import edgeprune
from edgeprune.cli import completion
from edgeprune.cli.outcome import show_front, show_run
from edgeprune.cli.screen import watching
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.bounds import PICTURE, REPORT
from edgeprune.pipeline.config import SECTIONS, RunConfig, make_config, read_toml, refuse_units, to_plain
from edgeprune.pipeline.stored import repeated, stored_config

Command = Callable[..., Any]

#: What a shell completes for an option.
_COMPLETED = {"data": completion.data_sets, "model": completion.models, "device": completion.devices}
#: Letters that the choices of an option may have before its name in the help; others follow the text.
_MOST = 60
#: Shown below the options; each is at most 78 columns wide.
_EXAMPLES = (
    "edgeprune run",
    "edgeprune run --data mnist --model lenet-300-100 --expect-ncr 3.46",
    "edgeprune run --data photos.zip --model net.py:network \\",
    "    --weights net.safetensors --max-latency 0.6x --max-drop 1",
    "edgeprune run --data mnist --max-latency 0.8x,0.6x,0.4x  # one network each",
    "edgeprune run --device rpi4 --precision fp32,int8 --max-latency 5ms",
    "edgeprune run --config edgeprune.toml  # edgeprune init writes one",
    "edgeprune run --resume NAME",
)


class _Number(click.types.FloatParamType):
    """A float; of "1%" and "3x" it says how to write them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if param is not None and param.name is not None:
            refuse_units(param.name, value)
        return super().convert(value, param, ctx)


def options(command: Command, names: Container[str] | None = None) -> Command:
    """One click option for every field, or those of `names`; types and choices are taken from its annotation."""
    hints = typing.get_type_hints(RunConfig)
    for field in reversed(dataclasses.fields(RunConfig)):
        if names is not None and field.name not in names:
            continue
        kind = hints[field.name]
        if get_origin(kind) in (typing.Union, types.UnionType):
            parts = [part for part in get_args(kind) if part is not type(None)]
            # A number, or several of them with commas.
            kind = str if str in parts else parts[0]
            words = [word for part in parts[1:] if get_origin(part) is Literal for word in get_args(part)]
            if words:
                kind = _NumberOr(*words)
        flag = "--" + field.name.replace("_", "-")
        extra: dict[str, Any] = {
            "default": None,
            "help": _help(field),
            "metavar": field.metadata["metavar"] or None,
            "shell_complete": _COMPLETED.get(field.name),
        }
        if kind is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        elif get_origin(kind) is Literal:
            choices = get_args(kind)
            extra |= {"type": click.Choice(choices), "metavar": None}
            if len("|".join(choices)) > _MOST:
                extra |= {"metavar": "NAME", "help": f"{extra['help']} One of: {', '.join(choices)}"}
        else:
            extra["type"] = {Path: click.Path(path_type=Path), float: _Number()}.get(kind, kind)
        command = click.option(flag, field.name, **extra)(command)
    return command


def _help(field: dataclasses.Field[Any]) -> str:
    text = str(field.metadata["help"])
    return text if field.default is None else f"{text} [{field.default}]"


class _NumberOr(click.types.IntParamType):
    """A whole number, or one of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self._words:
            return value
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r:.40} is neither a whole number nor {' or '.join(self._words)}", param, ctx)


class _RunCommand(click.Command):
    """`run`, whose many options stand in sections, as in docs/options.md."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, section by section, then what they may name, and examples."""
        section_of = {field.name: field.metadata["section"] for field in dataclasses.fields(RunConfig)}
        for section, title in [*SECTIONS.items(), (None, "The command itself")]:
            shown = [each for each in self.get_params(ctx) if section_of.get(each.name or "") == section]
            rows = [row for each in shown if (row := each.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(rows)
        from edgeprune.data.catalog import DATASETS  # noqa: PLC0415 - for this page alone
        from edgeprune.models.names import MODELS  # noqa: PLC0415

        with formatter.section("Networks of the zoo, for --model"):
            formatter.write_dl(list(MODELS.items()))
        with formatter.section("Data sets with a name, for --data"):
            formatter.write_dl([(name, known.about) for name, known in DATASETS.items()])
        with formatter.section("Examples"):
            for line in _EXAMPLES:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


@click.command(
    "run",
    cls=_RunCommand,
    epilog="Exit codes: 0 done, 1 failed here, 2 usage, 3 budget not met, 4 device trouble, 130 interrupted.",
)
@options
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a TOML file of these options, or the result.json of a run to repeat; flags win",
)
@click.option(
    "--resume",
    metavar="NAME",
    shell_complete=completion.runs,
    help="continue an interrupted run, or give a finished one more of what it had",
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
            show_front(found.front, found.folder, quiet)
        return found.exit_code
    if as_json:
        click.echo(json.dumps(outcome.result, indent=1))
    else:
        show_run(outcome.result, outcome.folder, quiet)
    return outcome.exit_code


def _write_page(folder: Path) -> None:
    """The run's report, unless it is there, or the folder of a run that was finished before may only be read."""
    if not (folder / REPORT).exists() and os.access(folder, os.W_OK):
        # What only the page needs takes a moment to load, which --help should not.
        from edgeprune.pipeline.report import write_report  # noqa: PLC0415

        write_report([folder], folder / REPORT)

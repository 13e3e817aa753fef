"""`edgeprune init`: a TOML file of settings, from a few questions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeprune.core.errors import EdgepruneError, UsageError, did_you_mean
from edgeprune.core.files import storing, write_bytes
from edgeprune.core.text import printable
from edgeprune.core.userfile import is_user_function
from edgeprune.data.catalog import DATASETS
from edgeprune.devices import find_device
from edgeprune.devices.names import book
from edgeprune.devices.names.registry import built_in
from edgeprune.models.names import MODELS
from edgeprune.pipeline.bounds import read_bounds
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.written import config_text

_ELSEWHERE = "choose another --out"


@click.command("init", epilog="Exit codes: 0 written, 1 it cannot be written, 2 usage, 130 interrupted.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("edgeprune.toml"),
    show_default=True,
    metavar="FILE",
    help="where to",
)
@click.option("--yes", is_flag=True, help="ask nothing: handwritten digits, which need no download, on this machine")
def init_command(out: Path, yes: bool) -> int:
    """Write a TOML file for `edgeprune run --config`: every setting with its help, those that you answer set."""
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "give --out a file in it")
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask questions on", "add --yes to take the defaults")
    if out.exists():
        if yes:
            raise UsageError(f"{out} exists", f"{_ELSEWHERE}, or leave --yes out to be asked")
        if not click.confirm(f"{printable(str(out))} exists; write over it?", err=True):
            click.echo(f"kept {out}", err=True)
            return 0
    start = RunConfig()
    values: dict[str, Any] = {"data": start.data, "model": start.model, "device": start.device}
    if not yes:
        values = _asked(values)
    head = f"Settings of `edgeprune run --config {printable(out.name)}`. To set one that is a comment, take its # away."
    with storing(out, elsewhere=_ELSEWHERE):
        write_bytes(out, config_text(values, head).encode())
    click.echo(f"{out} is written; next: edgeprune run --config {out}")
    return 0


def _asked(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that the answers give, without those that were left open."""
    known = ", ".join([*built_in(), *book.entries()])
    asked = {
        "data": _ask(f"data ({', '.join(DATASETS)}; a folder, .zip, .npz or FILE.py:FUNCTION)", values["data"], _data),
        "model": _ask(f"model ({', '.join(MODELS)}; or FILE.py:FUNCTION)", values["model"], _model),
        "weights": _ask("file of trained weights (none: the network is trained first)", "", _weights),
        "device": _ask(f"device to measure on ({known}; or an address)", values["device"], find_device),
        "max_latency": _ask("bound on latency, like 0.6x or 5ms (none: no bound)", "", _bound),
    }
    return {name: answer for name, answer in asked.items() if answer}


def _ask(question: str, default: str, check: Callable[[str], object]) -> str:
    """An answer that `check` takes; what it raises is said, and the question asked again."""
    while True:
        answer = str(click.prompt(printable(question), default=default, show_default=bool(default), err=True)).strip()
        try:
            check(answer)
        except EdgepruneError as error:
            click.echo(printable(str(error)), err=True)
            continue
        return answer


def _data(answer: str) -> None:
    if answer not in DATASETS and not _file(answer).exists():
        raise UsageError(f"there is no data set, and no file, '{answer:.100}'", did_you_mean(answer[:60], DATASETS))


def _model(answer: str) -> None:
    if answer not in MODELS and not (is_user_function(answer) and _file(answer).is_file()):
        raise UsageError(f"there is no network, and no file, '{answer:.100}'", did_you_mean(answer[:60], MODELS))


def _weights(answer: str) -> None:
    if answer and not Path(answer).is_file():
        raise UsageError(f"there is no file '{answer:.100}'", "press Enter to leave it out")


def _bound(answer: str) -> None:
    if answer:
        read_bounds("max_latency", answer)


def _file(answer: str) -> Path:
    """The file of an answer that may be FILE.py:FUNCTION."""
    return Path(answer.rpartition(":")[0] if is_user_function(answer) and ":" in answer else answer)

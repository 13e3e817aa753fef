"""`edgeprune devices`: the device book, the doctor, setting up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from edgeprune.cli import completion
from edgeprune.cli.commands import Commands
from edgeprune.core.errors import DeviceError
from edgeprune.core.plain import to_json
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.session import DeviceSpec
from edgeprune.core.units import format_bytes
from edgeprune.devices import KNOWN_BOARDS, find_device, open_session
from edgeprune.devices.emulator import setup as emulator
from edgeprune.devices.names import book
from edgeprune.devices.names.registry import built_in
from edgeprune.devices.ssh import session as ssh
from edgeprune.profilers import doctor

_BENCHMARK_MODEL = """Nothing is installed on a phone; USB debugging must be on, and `adb devices` must list it.
It is measured by Google's benchmark_model, which you fetch once, for example from the LiteRT releases:
take the build for the phone's processor (mostly android_aarch64) and give its path here:
edgeprune devices add {name} {address} --benchmark-model PATH --replace"""


@click.group("devices", cls=Commands)
def devices_command() -> None:
    """Devices to measure on: add, list, check, set up."""


@devices_command.command("add", epilog="Addresses: ssh://USER@HOST[:PORT], adb://[SERIAL], simulated://FILE.toml")
@click.argument("name")
@click.argument("address")
@click.option("--board", metavar="BOARD", help=f"take the defaults of {', '.join(KNOWN_BOARDS)} [NAME, if it is one]")
@click.option("--python", metavar="PATH", help="Python on the device that has the runtimes [python3]")
@click.option("--threads", type=int, metavar="N", help="threads of the runtime, unless a command says otherwise [1]")
@click.option("--runtime", type=click.Choice(get_args(RuntimeName)), help="runtime, unless a command says otherwise")
@click.option("--folder", metavar="PATH", help="folder on the device for the probe and models")
@click.option("--cache-size", metavar="SIZE", help="room for models that stay on the device from run to run [512MB]")
@click.option("--benchmark-model", metavar="PATH", help="for phones: Google's benchmark_model, on this machine")
@click.option("--project", is_flag=True, help=f"write into {book.PROJECT_FILE} of this folder, whose entries win")
@click.option("--replace", is_flag=True, help="write an entry anew that is there already")
def add_command(name: str, project: bool, replace: bool, **settings: str | int | None) -> None:
    """Add a device to the device book."""
    given = {key: value for key, value in settings.items() if value is not None}
    entry = book.add(name, given, project=project, replace=replace)
    click.echo(f"{name} is in {entry.file}")
    if (wins := book.entries()[name].file) != entry.file:
        click.echo(f"here, {name} of {wins} wins over it", err=True)
    first = f"edgeprune devices setup {name} (or, where the runtimes are there, " if entry.spec.kind == "ssh" else ""
    click.echo(f"next: {first}edgeprune devices check {name}{')' if first else ''}")


@devices_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of the table")
def list_command(as_json: bool) -> None:
    """The devices there are, and where each is written down."""
    found = [(spec, "built in") for spec in built_in().values()]
    found += [(entry.spec, str(entry.file)) for entry in book.entries().values()]
    if as_json:
        click.echo(json.dumps([{**to_json(spec), "from": source} for spec, source in found], indent=1))
        return
    rows = [(spec.name, spec.kind, spec.address, spec.board, _defaults(spec), source) for spec, source in found]
    _show(("device", "kind", "address", "board", "defaults", "from"), rows)


@devices_command.command("remove")
@click.argument("name", shell_complete=completion.devices)
def remove_command(name: str) -> None:
    """Take a device out of the device book."""
    file = book.remove(name)
    click.echo(f"{name} is out of {file}")
    if name in (left := book.entries()):
        click.echo(f"{name} of {left[name].file} counts now", err=True)


@devices_command.command("check", epilog="Exit codes: 0 nothing failed (warnings may be there), 4 something did.")
@click.argument("name", shell_complete=completion.devices)
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of the table")
def check_command(name: str, as_json: bool) -> int:
    """Examine a device: is it fit to measure on, and what to do if not."""
    spec = find_device(name)
    checks = doctor.check(spec)
    failed = any(check.status == "FAIL" for check in checks)
    if as_json:
        found = [dataclasses.asdict(check) for check in checks]
        report = {"device": name, "kind": spec.kind, "fit": not failed, "checks": found}
        click.echo(json.dumps(report, indent=1))
    else:
        _show(("check", "", "found", "what to do"), [(c.name, c.status, c.detail, c.advice) for c in checks])
    return DeviceError.exit_code if failed else 0


@devices_command.command("setup")
@click.argument("name", shell_complete=completion.devices)
@click.option("--dry-run", is_flag=True, help="say what would be done")
def setup_command(name: str, dry_run: bool) -> None:
    """Install the runtimes a device needs: over ssh into an environment of its own; an emulated device as a whole."""
    spec = find_device(name)
    if spec.kind == "ssh":
        _setup_ssh(spec, dry_run)
    elif spec.kind == "emulated":
        if dry_run:
            click.echo(f"would put an emulated board into {emulator.home()}")
            return
        emulator.install("rpi3" if name == "emulated-rpi3" else "rpi4", _say)
        click.echo(f"{name} is set up; next: edgeprune devices check {name}")
    elif spec.kind == "adb":
        click.echo(_BENCHMARK_MODEL.format(name="NAME" if "://" in name else name, address=spec.address))
    else:
        click.echo(f"{name} needs no setting up: it uses the runtimes of this Python")


@devices_command.command("clean")
@click.argument("name", shell_complete=completion.devices)
def clean_command(name: str) -> None:
    """Remove the models that earlier runs kept on a device."""
    with open_session(find_device(name)) as session:
        click.echo(f"{format_bytes(session.clean())} freed on {name}")


def _setup_ssh(spec: DeviceSpec, dry_run: bool) -> None:
    python = ssh.setup_board(spec, _print_command if dry_run else _say, dry_run=dry_run)
    if dry_run:
        click.echo(f"nothing was done; then {spec.name} would use {python}", err=True)
        return
    entry = book.entries().get(spec.name)
    if entry is None:
        click.echo(f"next: edgeprune devices add NAME {spec.address} --python {python}")
        return
    book.set_python(entry, python)
    click.echo(f"{spec.name} uses {python} from now on; next: edgeprune devices check {spec.name}")


def _defaults(spec: DeviceSpec) -> str:
    parts = [spec.runtime or "", f"{spec.threads} thread(s)" if spec.threads else "", spec.python]
    return ", ".join(part for part in parts if part)


def _show(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on stdout; what a device said must not steer the terminal."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*("".join(c if c.isprintable() else "?" for c in cell) for cell in row))
    # Without a terminal there is no width to fold to, and whoever reads it wants whole words.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 500
    console.print(table)


def _print_command(line: str) -> None:
    click.echo(line.removeprefix("$ "))


def _say(line: str) -> None:
    click.echo(f"  {line}", err=True)

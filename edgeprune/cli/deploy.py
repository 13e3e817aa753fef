"""`edgeprune deploy`: a bundle onto the device where it is to run, and back."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import cast

import click

from edgeprune.cli.screen import watching
from edgeprune.core.errors import UsageError
from edgeprune.core.kinds import KINDS
from edgeprune.core.session import DeviceSpec, ShellSession
from edgeprune.core.units import format_bytes
from edgeprune.deploy.bundle import opened, read_bundle
from edgeprune.deploy.place import Place
from edgeprune.deploy.release import Deployed, deploy, listed, rollback
from edgeprune.devices import find_device, open_session


@click.command("deploy", epilog="Exit codes: 0 done, 1 the bundle is damaged, 2 usage, 4 device; the old one runs on.")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--device", required=True, metavar="NAME", help="where to: a board, a phone, or local")
@click.option("--to", required=True, metavar="DIR", help="folder there; over ssh also relative to the home folder")
@click.option("--rollback", "back", is_flag=True, help="switch to the release that ran before")
@click.option("--list", "show", is_flag=True, help="what is there; * is the one that runs")
@click.option("--quiet", is_flag=True, help="no steps; only the outcome")
def deploy_command(bundle: Path | None, device: str, to: str, back: bool, show: bool, quiet: bool) -> int:
    """Put BUNDLE into DIR on a device, beside what runs there; switch to it once it answers its sample right.

    Applications open DIR/current, a link to the release that runs. Whatever is cut, and whenever, the old one goes on.
    The last three are kept.
    """
    if sum((bundle is not None, back, show)) != 1:
        raise UsageError(
            "expected one of BUNDLE, --rollback and --list", "type: edgeprune deploy app --device NAME --to DIR"
        )
    spec = find_device(device)
    if not KINDS[spec.kind].shell:
        raise UsageError(
            f"{spec.name} is {KINDS[spec.kind].title}: nothing can be deployed to it", "name a board, a phone, or local"
        )
    if bundle is not None:
        with opened(bundle) as folder:  # said before a device is waited for
            read_bundle(folder)
    screen = watching(quiet=quiet)
    # The kind's row says that its sessions are.
    with cast(ShellSession, open_session(spec)) as session:
        if show:
            _show(listed(Place(session, to)))
        elif back:
            name, left = rollback(session, to, screen.say)
            click.echo(f"{name} runs on {spec.name} again; {left} is kept")
        elif bundle is not None:
            _deploy(bundle, spec, session, to, screen.say)
    return 0


def _deploy(bundle: Path, spec: DeviceSpec, session: ShellSession, to: str, say: Callable[[str], None]) -> None:
    # torch takes seconds to load, which --help should not.
    from edgeprune.pipeline.bundle import verify_bundle  # noqa: PLC0415

    def verify(folder: Path, remote: str) -> float:
        return verify_bundle(folder, session, remote)[1]

    done = deploy(bundle, session, to, verify, say)
    what = f"{done.card.file}, {done.card.precision}, {format_bytes(done.card.bytes)}"
    if not done.done:
        click.echo(f"{done.name} runs on {spec.name} already and is this bundle ({what}): nothing was done")
        return
    click.echo(f"{done.name} runs on {spec.name}: {done.here}/current/{done.card.file} ({what})")
    if done.before:
        again = f"edgeprune deploy --device {spec.name} --to {shlex.quote(to)} --rollback"
        click.echo(f"to go back to {done.before}: {again}")


def _show(there: Deployed) -> None:
    for name, release in there.releases.items():
        what = "damaged: its note cannot be read"
        if release is not None:
            what = f"{release.deployed}  {release.file}  {release.precision}  {format_bytes(release.bytes)}"
        line = f"{'*' if name == there.current else ' '} {name}  {what}"
        click.echo("".join(c if c.isprintable() else "?" for c in line))  # a device must not steer the terminal
    if there.current not in there.releases:
        click.echo(f"{there.here}/current is no release: deploy a bundle", err=True)

"""`edgeprune bundle`: what goes into an application."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from edgeprune.cli.screen import watching
from edgeprune.core.runtimes import PRECISIONS, Format, Precision
from edgeprune.core.units import format_bytes
from edgeprune.devices import find_device, open_session


class _Bundle(click.Group):
    """`bundle RUN` is `bundle make RUN`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without the name of a command it is `make`."""
        if args and args[0] not in (*self.commands, *self.get_help_option_names(ctx)):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group("bundle", cls=_Bundle)
def bundle_group() -> None:
    """`bundle RUN` writes what an application needs of a finished run; `bundle verify` checks it."""


@bundle_group.command("make", epilog="Exit codes: 0 done, 1 failed here, 2 usage.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR|FILE.zip", help="where to")
@click.option("--format", "kind", type=click.Choice(get_args(Format)), help="which file [the one that was judged]")
@click.option("--precision", type=click.Choice(PRECISIONS), help="of which precision [the judged one's]")
def make_command(run: Path, out: Path, kind: Format | None, precision: Precision | None) -> int:
    """Write a folder, or a .zip, for an application: the file of RUN (a folder, as runs/NAME) and how to use it.

    It holds the model, model.json (inputs and how they are scaled, outputs, labels, what was measured where, hashes),
    predict.py (needs numpy and the runtime alone), a sample with the answer that is expected, and SHA256SUMS.
    """
    # torch takes seconds to load, which --help should not.
    from edgeprune.pipeline.bundle import bundle_run  # noqa: PLC0415

    card = bundle_run(run, out, kind, precision)
    click.echo(f"{out}: {card.file}, {card.precision}, {format_bytes(card.bytes)}, for {card.runtime}")
    if out.suffix != ".zip":
        click.echo(f"next: copy it to where it runs, and type python {out / 'predict.py'} there")
    return 0


@bundle_group.command("verify", epilog="Exit codes: 0 good, 1 a file is missing or changed, 2 usage, 4 wrong answer.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", default="local", show_default=True, metavar="NAME", help="where the sample is answered")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def verify_command(bundle: Path, device: str, quiet: bool) -> int:
    """Check every file of BUNDLE by its hash, and what its model answers to the sample on a device."""
    spec = find_device(device)
    from edgeprune.pipeline.bundle import verify_bundle  # noqa: PLC0415

    watching(quiet=quiet).say(f"{bundle} on {spec.name}")
    with open_session(spec) as session:
        card, off = verify_bundle(bundle, session)
    click.echo(f"{bundle}: good; {card.file} on {spec.name} is off by {off:.2g}, at most {card.sample.tolerance:.2g}")
    return 0

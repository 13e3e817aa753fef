"""`edgeprune`: the group of commands, and how every error leaves the program."""

from __future__ import annotations

import os
import sys

import click

from edgeprune.cli.bench import bench_group
from edgeprune.cli.bundle import bundle_group
from edgeprune.cli.devices import devices_command
from edgeprune.cli.inspect import inspect_command
from edgeprune.cli.profile import profile_command
from edgeprune.cli.report import report_command
from edgeprune.cli.run import run_command
from edgeprune.cli.shapley import shapley_command
from edgeprune.cli.start import INTERRUPTED
from edgeprune.cli.validate import validate_command
from edgeprune.core.errors import EdgepruneError
from edgeprune.core.version import VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edgeprune")
def cli() -> None:
    """Prune a trained network for an edge device, export it, and prove it on that device."""


cli.add_command(run_command)
cli.add_command(bench_group)
cli.add_command(bundle_group)
cli.add_command(devices_command)
cli.add_command(inspect_command)
cli.add_command(profile_command)
cli.add_command(report_command)
cli.add_command(validate_command)
cli.add_command(shapley_command)


# Threads of torch that wait must sleep: spinning ones slow down the probe that is measured next, and on a machine with
# other work every parallel step takes many times as long. It is read when torch is loaded, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed here, 2 usage, 3 budget not met, 4 device, 130 interrupted."""
    try:
        code = cli.main(args=arguments, prog_name="edgeprune", standalone_mode=False)
    except EdgepruneError as error:
        _say(f"error: {error}")
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        _say(f"error: {message}")
        code = 2
    except (KeyboardInterrupt, click.Abort) as stop:
        # click wraps the interrupt, which carries the run's name, in an Abort.
        said = (stop.__cause__ or stop).args
        name = said[0] if said else None
        _say(f"interrupted; what was done is kept: continue with --resume {name}" if name else "interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # stdout is a full disk, say
        _say(f"error: cannot go on: {error.strerror or error}")
        code = 1
    sys.exit(code or 0)


def _say(line: str) -> None:
    # What the user typed is repeated in messages, and may hold what moves the terminal's cursor.
    click.echo("".join(c if c.isprintable() else "?" for c in line), err=True)

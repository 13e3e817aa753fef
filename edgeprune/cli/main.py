"""`edgeprune`: the group of commands, and how every error leaves the program."""

from __future__ import annotations

import os
import sys

import click

from edgeprune.cli.commands import LazyCommands
from edgeprune.cli.start import INTERRUPTED
from edgeprune.core.errors import EdgepruneError
from edgeprune.core.parts import parts_there
from edgeprune.core.processes import crowded
from edgeprune.core.text import printable
from edgeprune.core.version import VERSION

#: Where each command is.
PLACES = {
    "bench": "edgeprune.cli.bench:bench_group",
    "bundle": "edgeprune.cli.bundle:bundle_group",
    "compare": "edgeprune.cli.compare:compare_command",
    "deploy": "edgeprune.cli.deploy:deploy_command",
    "devices": "edgeprune.cli.devices:devices_command",
    "export": "edgeprune.cli.export:export_command",
    "init": "edgeprune.cli.init:init_command",
    "inspect": "edgeprune.cli.inspect:inspect_command",
    "profile": "edgeprune.cli.profile:profile_command",
    "report": "edgeprune.cli.report:report_command",
    "run": "edgeprune.cli.run:run_command",
    "runs": "edgeprune.cli.runs:runs_group",
    "shapley": "edgeprune.cli.shapley:shapley_command",
    "validate": "edgeprune.cli.validate:validate_command",
    "watch": "edgeprune.cli.watch:watch_command",
}


@click.group(cls=LazyCommands, places=PLACES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edgeprune")
def cli() -> None:
    """Prune a trained network for an edge device, export it, and prove it on that device."""


#: The commands that train. Each loads torch after it is called.
_TRAINING = ("bench", "export", "run", "shapley")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed here, 2 usage, 3 not met or worse, 4 device, 130 interrupted."""
    _settle_waiting((sys.argv[1:] if arguments is None else arguments)[:1])
    try:
        with parts_there():
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
        # Python remembers an interrupt that came while text ran as code (a dataclass was made, say), and `python -m`
        # would end by the signal and not with our code. It forgets it when the next text runs.
        exec("")
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
    click.echo(printable(line), err=True)


def _settle_waiting(command: list[str]) -> None:
    """How torch's threads wait for each other; it is read when torch is loaded.

    They spin for a while, which trains small networks 1.4 times as fast; beside other programs, which take their
    processors meanwhile, it is 1.6 times slower, and they sleep (docs/decisions/0024-threads-that-wait.md).
    """
    if command and command[0] in _TRAINING and "OMP_WAIT_POLICY" not in os.environ and crowded():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

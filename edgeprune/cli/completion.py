"""Names that a shell completes: models, data sets, devices, runs. Nothing here fails, or loads torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from edgeprune.core.errors import EdgepruneError

#: Where runs are unless --runs-dir says so: the default of that option, without loading all of them.
_RUNS = Path("runs")


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Networks of the zoo, else files."""
    from edgeprune.models.names import MODELS  # noqa: PLC0415 - each loads what it needs: a shell waits for it

    return _names(MODELS, incomplete) or [CompletionItem(incomplete, type="file")]


def data_sets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Data sets with a name, else files."""
    from edgeprune.data.catalog import DATASETS  # noqa: PLC0415 - as above

    return _names(DATASETS, incomplete) or [CompletionItem(incomplete, type="file")]


def devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Devices that are built in or in a device book."""
    from edgeprune.devices.names import book  # noqa: PLC0415 - as above
    from edgeprune.devices.names.registry import built_in  # noqa: PLC0415

    names = list(built_in())
    with contextlib.suppress(EdgepruneError, OSError):
        names += book.entries()
    return _names(names, incomplete)


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Runs in --runs-dir."""
    from edgeprune.pipeline.runs import names_of_runs  # noqa: PLC0415 - as above

    return _names(names_of_runs(Path(ctx.params.get("runs_dir") or _RUNS)), incomplete)


def _names(known: Iterable[str], incomplete: str) -> list[CompletionItem]:
    # What cannot be printed would steer the terminal, and a line's end part an answer to the shell.
    return [CompletionItem(name) for name in known if name.startswith(incomplete) and name.isprintable()]

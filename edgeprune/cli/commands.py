"""Groups of commands: an unknown name is answered with the known ones, and a command is loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from edgeprune.core.errors import nearest_first


class Commands(click.Group):
    """A group that names its commands, the nearest first, to whoever mistypes one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it. Raises click.UsageError for an unknown command."""
        name = str(args[0])
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and name not in known and not name.startswith("-"):
            ctx.fail(f"No such command '{name:.60}'; the commands are: {', '.join(nearest_first(name[:60], known))}")
        return super().resolve_command(ctx, args)


class LazyCommands(Commands):
    """Commands that are imported when they are called: each loads what it needs, and no other waits for that."""

    def __init__(self, *given: Any, places: Mapping[str, str] | None = None, **more: Any) -> None:
        """`places` has the "module:attribute" of each command by its name."""
        super().__init__(*given, **more)
        self._places = places or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return sorted([*super().list_commands(ctx), *self._places])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported; None where there is none."""
        if cmd_name not in self._places:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._places[cmd_name].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names that begin so: what each does would have to be imported, and a shell does not wait."""
        names = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

"""What the terminal shows while a run goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgeprune.cli.start import stop_if_asked
from edgeprune.core.progress import Bar, Silent


class _Unseen:
    def advance(self, steps: float = 1, note: str = "") -> None:  # noqa: ARG002
        stop_if_asked()


class Quiet(Silent):
    """Shows nothing; ends the work with KeyboardInterrupt if the user asked for that and others' code swallowed it."""

    unseen: ClassVar[Bar] = _Unseen()

    def stage(self, title: str) -> None:  # noqa: ARG002
        """Nothing is shown."""
        stop_if_asked()

    def say(self, text: str) -> None:  # noqa: ARG002
        """Nothing is shown."""
        stop_if_asked()


class _Bar(_Unseen):
    def __init__(self, bars: Progress, number: int) -> None:
        self._bars = bars
        self._number = number

    def advance(self, steps: float = 1, note: str = "") -> None:
        super().advance(steps)
        self._bars.update(self._number, advance=steps, note=note)  # type: ignore[arg-type]


class ErrorConsole(Console):
    """Standard error for people; when whoever read it has gone, the work goes on unseen."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Show nothing more, instead of ending the program."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class _Heard(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(record.getMessage())


class Screen(Quiet):
    """Stages as headings, bars that leave one line behind, on stderr: stdout is for results."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # What is waited for or tried again below is said here too; the newest screen hears it.
        log = logging.getLogger("edgeprune")
        log.handlers[:] = [_Heard(self)]
        log.setLevel(logging.INFO)

    def stage(self, title: str) -> None:
        """A heading."""
        super().stage(title)
        self._console.print(f"[bold cyan]{title}[/bold cyan]")

    def say(self, text: str) -> None:
        """A line, indented below its stage."""
        super().say(text)
        self._console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def _show(self, title: str, total: float | None) -> Iterator[Bar]:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as bars:
            yield _Bar(bars, bars.add_task(title, total=total, note=""))

    def bar(self, title: str, total: float | None) -> AbstractContextManager[Bar]:
        """A bar for the length of a `with` block."""
        return self._show(title, total)


def watching(*, quiet: bool) -> Quiet:
    """What a command shows of its work."""
    return Quiet() if quiet else Screen(ErrorConsole())

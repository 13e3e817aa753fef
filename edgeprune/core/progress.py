"""How long work tells what it does. Rooms below the command line speak to this interface and never print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """`steps` further; `note` is the newest figure worth showing."""


class Progress(Protocol):
    """Whoever watches: the terminal, a log, nobody."""

    def stage(self, title: str) -> None:
        """A new stage of the job begins."""

    def say(self, text: str) -> None:
        """One line worth keeping."""

    def task(self, title: str, total: float | None) -> AbstractContextManager[Task]:
        """A bar of `total` steps (None: unknown) for the length of a `with` block."""


class _SilentTask:
    def advance(self, steps: float = 1, note: str = "") -> None:
        """Nobody watches."""


class Silent:
    """A `Progress` that shows nothing."""

    #: A bar that nobody sees.
    unseen: ClassVar[Task] = _SilentTask()

    def stage(self, title: str) -> None:
        """Nobody watches."""

    def say(self, text: str) -> None:
        """Nobody watches."""

    @contextmanager
    def _task(self) -> Iterator[Task]:
        yield self.unseen

    def task(self, title: str, total: float | None) -> AbstractContextManager[Task]:  # noqa: ARG002
        """Nobody watches."""
        return self._task()

"""How long work tells what it does. Rooms below the command line speak to this interface and never print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Protocol


class Bar(Protocol):
    """One bar."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """`steps` further; `note` is the newest figure worth showing."""


class Progress(Protocol):
    """Whoever watches: the terminal, a log, nobody."""

    def stage(self, title: str) -> None:
        """A new stage of the job begins."""

    def say(self, text: str) -> None:
        """One line worth keeping."""

    def bar(self, title: str, total: float | None) -> AbstractContextManager[Bar]:
        """A bar of `total` steps (None: unknown) for the length of a `with` block."""


class _SilentBar:
    def advance(self, steps: float = 1, note: str = "") -> None:
        """Nobody watches."""


class Silent:
    """A `Progress` that shows nothing."""

    #: A bar that nobody sees.
    unseen: ClassVar[Bar] = _SilentBar()

    def stage(self, title: str) -> None:
        """Nobody watches."""

    def say(self, text: str) -> None:
        """Nobody watches."""

    @contextmanager
    def _bar(self) -> Iterator[Bar]:
        yield self.unseen

    def bar(self, title: str, total: float | None) -> AbstractContextManager[Bar]:  # noqa: ARG002
        """Nobody watches."""
        return self._bar()

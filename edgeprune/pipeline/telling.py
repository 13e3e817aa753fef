"""What a run tells while it goes on: to whoever called it, and to files in its folder for whoever watches those."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from edgeprune.core.errors import EdgepruneError
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Bar, Progress
from edgeprune.core.store import STATUS, RunFolder
from edgeprune.pipeline.records.status import RunStatus, Step

#: Seconds between two notes of how far a step is: people watch, and the run has other things to do.
EVERY_S = 1.0


class Telling:
    """A `Progress` that also writes stages and lines to run.log, and where the run is to status.json and `note`."""

    def __init__(self, progress: Progress, folder: RunFolder, note: Callable[[str], None]) -> None:
        self._progress = progress
        self._folder = folder
        self._note = note
        self._began = time.monotonic()
        self._steps: list[_Step] = []
        self._written = self._began
        self.current = "start"

    def begin(self) -> None:
        """Write that the run is in its first stage."""
        self._note(self.current)
        self._write()

    def stage(self, title: str) -> None:
        """A new stage of the job begins."""
        self.current = title
        self._note(title)
        self._folder.log(f"== {title}")
        self._write()
        self._progress.stage(title)

    def say(self, text: str) -> None:
        """One line worth keeping."""
        self._folder.log(text)
        self._progress.say(text)

    def bar(self, title: str, total: float | None) -> AbstractContextManager[Bar]:
        """A bar for the length of a `with` block; of several inside each other the outermost one is written."""
        return self._step(title, total)

    def end(self, exit_code: int) -> None:
        """Write how the run ended."""
        self._steps.clear()
        self._write(exit_code)

    def step_on(self) -> None:
        """Write how far the outermost step is, unless that was done a moment ago."""
        if time.monotonic() - self._written >= EVERY_S:
            self._write()

    @contextmanager
    def _step(self, title: str, total: float | None) -> Iterator[Bar]:
        with self._progress.bar(title, total) as bar:
            step = _Step(self, bar, title, total)
            self._steps.append(step)
            self._write()
            try:
                yield step
            finally:
                if step in self._steps:
                    self._steps.remove(step)
                self._write()

    def _write(self, exit_code: int | None = None) -> None:
        self._written = time.monotonic()
        status = RunStatus(
            stage=self.current,
            seconds=round(self._written - self._began, 2),
            step=self._steps[0].told() if self._steps else None,
            exit_code=exit_code,
        )
        # It is for watchers alone: where it cannot be written the run goes on.
        with contextlib.suppress(EdgepruneError, OSError):
            self._folder.write_json(STATUS, to_json(status))


class _Step:
    """A bar that remembers how far it is."""

    def __init__(self, telling: Telling, bar: Bar, title: str, total: float | None) -> None:
        self._telling = telling
        self._bar = bar
        self._title = title
        self._total = total
        self._began = time.monotonic()
        self._done = 0.0
        self._last = ""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """`steps` further."""
        self._done += steps
        self._last = note
        self._telling.step_on()
        self._bar.advance(steps, note)

    def told(self) -> Step:
        """How far it is now."""
        seconds = round(time.monotonic() - self._began, 2)
        return Step(title=self._title, done=self._done, total=self._total, seconds=seconds, note=self._last)

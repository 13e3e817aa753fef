"""Time limits as deadlines, made once and passed down, so that they cannot add up; and how long parts of work took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock. `Deadline.after(30).left()` -> seconds left, never negative."""

    at_s: float
    clock: Callable[[], float] = field(default=time.monotonic)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(clock() + seconds, clock)

    def left(self) -> float:
        """Seconds left, 0.0 when it has passed."""
        return max(0.0, self.at_s - self.clock())


class Laps:
    """Seconds by the name of a part. `with laps("scoring"): ...` adds to what that part took; threads may share it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """While it lasts the clock runs for `part`; each part is one thread's."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.monotonic() - started

    @property
    def seconds(self) -> dict[str, float]:
        """What each part took so far."""
        return dict(self._seconds)

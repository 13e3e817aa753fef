"""Time limits as deadlines: made once, passed down, so that they cannot add up."""

from __future__ import annotations

import time
from collections.abc import Callable
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

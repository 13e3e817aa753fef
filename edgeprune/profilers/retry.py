"""When a device does not answer: how often, and for how long, it is asked again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeprune.core.clock import Deadline
from edgeprune.devices.channel import ChannelError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

#: Seconds to wait for a device that is lost or busy, before its measurement counts as failed.
PATIENCE_S = 120.0
#: How often work is tried whose failure is the work's own: a crash, a hang, nonsense.
_ATTEMPTS = 2
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a device is asked, in seconds."""

    #: Each try.
    timeout_s: float
    #: From its first failure on, one that is lost or busy.
    away_s: float = PATIENCE_S


def persist(
    work: Callable[[Deadline], T],
    patience: Patience,
    *,
    again: Callable[[ChannelError], None],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`work`, each time with `patience.timeout_s`, until it succeeds or is given up.

    A link that is cut or a device in use comes back: such failures ("lost", "busy") are retried, at growing intervals,
    for `patience.away_s` after the first. Other retryable ones are tried twice. `again` hears of each failure that is
    followed by another try. Raises the last ChannelError.
    """
    attempts, pause = _ATTEMPTS, _PAUSE_S
    told: set[str] = set()
    away: Deadline | None = None
    while True:
        try:
            return work(Deadline.after(patience.timeout_s))
        except ChannelError as error:
            if not error.retryable:
                raise
            passing = error.kind in ("lost", "busy")
            if passing:
                away = away or Deadline.after(patience.away_s)
            else:
                attempts -= 1
            if attempts == 0 or (passing and away is not None and away.left() <= 0):
                raise
            again(error)
            if error.kind not in told:
                _LOG.info("%s; trying again%s", error.message, f", for {patience.away_s:.0f} s" if passing else "")
            told.add(error.kind)
        if passing:
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

"""When a device does not answer: how often, and for how long, it is asked again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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


def persist(
    work: Callable[[Deadline], T],
    *,
    timeout_s: float,
    patience_s: float,
    again: Callable[[ChannelError], None],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`work`, each time with `timeout_s`, until it succeeds or is given up.

    A link that is cut or a device in use comes back: such failures ("lost", "busy") are retried, at growing intervals,
    for `patience_s` after the first. Other retryable ones are tried twice. `again` hears of each failure that is
    followed by another try. Raises the last ChannelError.
    """
    attempts, pause = _ATTEMPTS, _PAUSE_S
    told: set[str] = set()
    patience: Deadline | None = None
    while True:
        try:
            return work(Deadline.after(timeout_s))
        except ChannelError as error:
            if not error.retryable:
                raise
            passing = error.kind in ("lost", "busy")
            if passing:
                patience = patience or Deadline.after(patience_s)
            else:
                attempts -= 1
            if attempts == 0 or (passing and patience is not None and patience.left() <= 0):
                raise
            again(error)
            if error.kind not in told:
                _LOG.info("%s; trying again%s", error.message, f", for {patience_s:.0f} s" if passing else "")
            told.add(error.kind)
        if passing:
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

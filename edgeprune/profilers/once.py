"""A file is run once before it is measured."""

from __future__ import annotations

import time

from edgeprune.core.clock import Deadline
from edgeprune.core.kinds import KINDS
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.session import Session
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import ProbeClient, Pushed, in_fresh_process
from edgeprune.profilers.predict import ENDLESS

_TIMEOUT_S = 900.0
#: How many times as long a file may take to open as it did a moment ago.
_REOPENED = 5.0


def run_once(session: Session, settings: MeasureSettings, pushed: Pushed, longest_s: float) -> bool:
    """Run a file once; whether the device can: an inference that never ends would be waited for in every process.

    Raises ChannelError, of kind "timeout" where it takes longer than `longest_s`.
    """
    # On a phone nothing runs just once: benchmark_model repeats a run, and ends by its own limits.
    if not KINDS[session.spec.kind].probed:
        return False

    def once(client: ProbeClient, deadline: Deadline) -> None:
        client.hello([], deadline)
        start = time.monotonic()
        client.open("once", pushed, deadline)
        opened_s = time.monotonic() - start
        try:
            client.load("once", pushed, Deadline.after(longest_s + _REOPENED * opened_s))
        except ChannelError as error:
            if error.kind != "timeout":
                raise
            said = f"one inference took longer than {longest_s:.0f} s"
            raise ChannelError("timeout", said, ENDLESS, retryable=False) from error

    in_fresh_process(session, settings, once, timeout_s=_TIMEOUT_S)
    return True

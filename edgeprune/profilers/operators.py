"""What each operator of a file takes on a device, by the runtime's own profiler."""

from __future__ import annotations

from pathlib import Path

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.session import Session
from edgeprune.profilers.client import ProbeClient, in_fresh_process, push_patiently
from edgeprune.profilers.replies import Operator

#: Inferences that each median is taken of; of a slow file fewer, so that they take about so many seconds.
OPERATOR_RUNS, _LEAST_RUNS, _LONG_S = 30, 3, 5.0
_TIMEOUT_S = 300.0


def time_operators(
    session: Session, settings: MeasureSettings, file: Path, latency: float
) -> tuple[tuple[Operator, ...], str]:
    """Median seconds of each operator per inference, in a fresh process; or none, and why they cannot be had.

    `latency`: about the seconds of one inference. The profiler's own work is in what it tells: the sum is more than an
    inference takes.
    """
    if session.spec.unit == "instructions":
        return (), "an emulated processor counts instructions: it has no times"
    runs = max(_LEAST_RUNS, min(OPERATOR_RUNS, int(_LONG_S / latency)))

    def timed(client: ProbeClient, deadline: Deadline) -> tuple[tuple[Operator, ...] | None, str]:
        client.hello([pushed], deadline)
        if "operators" not in client.ops:
            return None, "the device does not tell times of that kind"
        return client.operators(pushed, runs, session.scratch("operators"), deadline)

    try:
        pushed = push_patiently(session, file)
        found, why = in_fresh_process(session, settings, timed, timeout_s=_TIMEOUT_S)
    except DeviceError as error:
        # What was measured before is worth more than these: whoever needs the device next hears of it.
        return (), error.message
    return found or (), why

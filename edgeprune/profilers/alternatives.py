"""Files of a network that different runtimes run, with different numbers of threads, timed beside each other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, RuntimeMissing
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.session import Session
from edgeprune.devices.channel import ChannelError, is_away
from edgeprune.profilers.client import ProbeClient, in_fresh_process, push_patiently
from edgeprune.profilers.statistics import Interval, quotient_interval

#: Fresh processes; of an emulated processor, which repeats exactly, two.
_PROCESSES, _EMULATED_PROCESSES = 5, 2
_ROUNDS, _ROUND_S, _RUNS, _TIMEOUT_S = 3, 0.02, 3, 300.0


@dataclass(frozen=True, slots=True)
class Alternative:
    """A model file, and how it is run."""

    file: Path
    runtime: RuntimeName
    threads: int


def cores_of(session: Session, runtime: RuntimeName) -> int:
    """Cores that a process may use there; one where the device does not tell. Raises DeviceError."""

    def ask(client: ProbeClient, deadline: Deadline) -> object:
        return client.hello([], deadline).get("cores")

    told = in_fresh_process(session, MeasureSettings(runtime), ask, timeout_s=_TIMEOUT_S)
    return told if isinstance(told, int) and told > 0 else 1


def time_alternatives(
    session: Session, alternatives: Sequence[Alternative], progress: Progress
) -> list[Interval | DeviceError]:
    """Latency of each in the device's unit, with its 95 % interval, in the order given.

    Files of two runtimes cannot be raced in one process: process i of each runs before process i + 1 of any, so that
    a drift of the device meets all alike. One that cannot be run becomes what it raised, and the others go on.

    Raises DeviceError where the device is lost, in use or full.
    """
    works: list[_Work] = []
    count = _EMULATED_PROCESSES if session.spec.unit == "instructions" else _PROCESSES
    try:
        works += (_Work(session, each) for each in alternatives)
        with progress.bar("timing runtimes and threads", count * len(works)) as bar:
            for _ in range(count):
                for work in works:
                    bar.advance(1, work.once())
    finally:
        for work in works:
            work.remove()
    return [work.found() for work in works]


class _Work:
    def __init__(self, session: Session, alternative: Alternative) -> None:
        self._session, self._alternative = session, alternative
        self._settings = MeasureSettings(
            alternative.runtime, alternative.threads, rounds=_ROUNDS, round_s=_ROUND_S, min_runs=_RUNS
        )
        self._pushed = push_patiently(session, alternative.file)
        self._medians: list[float] = []
        self._error: DeviceError | None = None

    def once(self) -> str:
        """Time it in one more process."""

        def timed(client: ProbeClient, deadline: Deadline) -> float:
            client.hello([self._pushed], deadline)
            return statistics.median(client.race(self._pushed, None, deadline).samples)

        if self._error is None:
            try:
                self._medians.append(in_fresh_process(self._session, self._settings, timed, timeout_s=_TIMEOUT_S))
            except (ChannelError, RuntimeMissing) as error:
                if is_away(error):
                    raise
                self._error = error
        return f"{self._alternative.runtime}, {self._alternative.threads} threads"

    def found(self) -> Interval | DeviceError:
        ones = [1.0] * len(self._medians)
        return self._error or quotient_interval(self._medians, ones, range(len(ones)))

    def remove(self) -> None:
        # A device that is gone keeps the file; it goes when its cache is full.
        with suppress(DeviceError):
            self._session.remove(self._pushed.path)

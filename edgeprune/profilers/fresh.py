"""The comparison that counts: candidate and baseline in fresh processes, latency and memory in different ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from edgeprune.core.clock import Deadline
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.progress import Bar, Progress, Silent
from edgeprune.core.session import Session
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, Pushed, in_fresh_process, push_patiently
from edgeprune.profilers.replies import Race
from edgeprune.profilers.statistics import Interval, cost_interval
from edgeprune.profilers.verdict import State, judge, taint

_MEMORY_PROCESSES = 5
#: Seconds that each process may wait for a hot device to cool; between two looks.
_COOLING_S, _LOOK_S = 120.0, 2.0
#: While more processes may follow, an interval counts as off a bound where even one so many times as wide is. Who looks
#: after each process and stops at the first interval that happens to be off is wrong far more often than once in 20
#: times: a figure that lies on its bound, looked at up to 90 times, in 30 % of the races, with this factor in 9 %
#: (python benchmarks/stopping.py). A figure 1 % off its bound costs 17 processes instead of 11.
_CLEAR = 1.5


class Watched(Protocol):
    """What one fresh process found out, with the device's states before and after (none: it does not tell)."""

    @property
    def states(self) -> Sequence[State]:
        """Two, or none."""


W = TypeVar("W", bound=Watched)


@dataclass
class Collector(Generic[W]):
    """Decides, process by process, which count and whether one more is needed.

    Processes during which the device was throttled or busy are set aside and made up for, at most as many as were asked
    for, and never more than half of all: where too few good ones are left, some of them are kept after all, and the
    verdict says so. With a `half_width` further ones are wanted until the interval is as narrow, with `until_off` until
    it is clearly off that bound, and in either case no longer than `max_s` seconds after the first was asked.
    """

    settings: MeasureSettings
    interval: Callable[[Sequence[W]], Interval | None]
    _good: list[W] = field(default_factory=list)
    _set_aside: list[W] = field(default_factory=list)
    _limit: Deadline | None = None

    def add(self, item: W) -> None:
        """What one more process found out."""
        states = item.states
        spoilt = len(states) == 2 and taint(states[0], states[1], self.settings)
        (self._set_aside if spoilt else self._good).append(item)

    def wanted(self) -> bool:
        """Whether one more process is needed."""
        self._limit = self._limit or Deadline.after(self.settings.max_s)
        if len(self._good) < self.settings.processes and self._count < 2 * self.settings.processes:
            return True
        narrow, bound = self.settings.half_width, self.settings.until_off
        if (not narrow and bound is None) or not self._limit.left():
            return False
        interval = self.interval(self.kept())
        if interval is None or (narrow and interval.half_width > narrow):
            return True
        return bound is not None and interval.answer(bound.value, _CLEAR) == "open"

    def kept(self) -> list[W]:
        """The processes that count."""
        least = max(self.settings.processes, self._count // 2)
        return self._good + self._set_aside[: max(0, least - len(self._good))]

    @property
    def _count(self) -> int:
        return len(self._good) + len(self._set_aside)

    @property
    def rejected(self) -> int:
        """How many processes do not count."""
        return self._count - len(self.kept())

    def note(self) -> str:
        """The newest figure worth showing."""
        interval = self.interval(self.kept()) if self._count > 1 else None
        width = f"±{100 * interval.half_width:.1f} %" if interval else ""
        spoilt = f"{len(self._set_aside)} disturbed" if self._set_aside else ""
        more = ""
        if self._limit is not None and self._count > self.settings.processes:
            # The bar stands still: these were not counted upon.
            more = f"{self._count} processes, {self._limit.left():.0f} s more at most"
        return ", ".join(part for part in (width, spoilt, more) if part)


@dataclass(frozen=True, slots=True)
class Raced:
    """All races of two files that count."""

    races: tuple[Race, ...]
    rejected: int
    unit: Unit
    facts: Mapping[str, Any]

    @property
    def samples(self) -> tuple[float, ...]:
        """The candidate's, of all races."""
        return tuple(sample for race in self.races for sample in race.samples)

    @property
    def against(self) -> tuple[float, ...]:
        """The baseline's, of the same rounds."""
        return tuple(sample for race in self.races for sample in race.against)

    @property
    def process(self) -> tuple[int, ...]:
        """The race of each sample."""
        return tuple(index for index, race in enumerate(self.races) for _ in race.samples)

    @property
    def states(self) -> tuple[State, ...]:
        """Before and after each race."""
        return tuple(state for race in self.races for state in race.states)

    @property
    def interval(self) -> Interval:
        """The quotient, candidate / baseline."""
        return cost_interval(self.samples, self.against, self.process)

    @property
    def judged(self) -> Interval | None:
        """The interval, where it says how fresh processes differ; counts do not."""
        return self.interval if len(self.races) > 1 or self.unit == "instructions" else None


def compare_fresh(
    session: Session,
    settings: MeasureSettings,
    candidate: Path,
    baseline: Path,
    progress: Progress | None = None,
    *,
    memories: int | None = None,
    timeout_s: float = 900.0,
    probe_file: Path = PROBE,
) -> Measurement | Failure:
    """Race `candidate` and `baseline` in `settings.processes` fresh processes (5 or more for an interval worth having).

    More follow where the settings ask for a narrower interval or one that is off a bound, and in place of processes
    that were disturbed (see `Collector`). Memory, load and first-inference time are medians over the processes; five
    further processes (or so many `memories`) only read memory, the order of the two files alternating. A process that
    fails is repeated (see `retry.persist`); each has `timeout_s`.

    Raises ValueError unless `settings.processes` is above 0, and DeviceError where a file cannot be pushed or the
    runtime is not there.
    """
    if settings.processes < 1:
        raise ValueError("a fresh comparison needs settings.processes >= 1")
    watch = progress or Silent()
    readings = memory_processes(session, settings) if memories is None else memories
    try:
        ours, theirs = push_patiently(session, candidate), push_patiently(session, baseline)
        with watch.bar("fresh processes", settings.processes + readings) as bar:
            raced = race_fresh(session, settings, ours, theirs, bar, timeout_s=timeout_s, probe_file=probe_file)
            read = list(_memories(session, settings, ours, theirs, readings, timeout_s, probe_file, bar))
    except ChannelError as error:
        return error.failure()
    verdict, advice = judge(raced.states, raced.judged, settings)
    return Measurement(
        unit=raced.unit,
        samples=raced.samples,
        warmups=tuple(sample for race in raced.races for sample in race.warmups),
        against=raced.against,
        peak_bytes=int(statistics.median(memory.candidate for memory in read)),
        against_peak_bytes=int(statistics.median(memory.baseline for memory in read)),
        memory_method=read[0].method,
        sha256=ours.sha256,
        against_sha256=theirs.sha256,
        device=session.spec.name,
        facts={**session.facts(), **raced.facts},
        settings=settings,
        process=raced.process,
        load_s=median_or_none([race.load_s for race in raced.races]),
        first_s=median_or_none([race.first_s for race in raced.races]),
        states=raced.states,
        verdict=verdict,
        advice=advice,
        rejected=raced.rejected,
    )


def race_fresh(
    session: Session,
    settings: MeasureSettings,
    ours: Pushed,
    theirs: Pushed,
    bar: Bar,
    *,
    timeout_s: float,
    probe_file: Path = PROBE,
) -> Raced:
    """The races of `compare_fresh`, without memory. Raises ChannelError."""
    bound = settings.until_off
    collector: Collector[Race] = Collector(settings, partial(_interval, relative=bound is None or bound.relative))
    unit: Unit = "s"
    facts: Mapping[str, Any] = {}

    def timed(client: ProbeClient, deadline: Deadline) -> Race:
        nonlocal unit, facts
        # The first load of a process pays for what the runtime does once, so neither model's timed load is the first.
        facts = client.hello([theirs], deadline)
        unit = client.unit
        cool_down(client, settings, deadline)
        return client.race(ours, theirs, deadline)

    gather(session, collector, timed, bar, timeout_s=timeout_s, probe_file=probe_file)
    return Raced(tuple(collector.kept()), collector.rejected, unit, facts)


def gather(
    session: Session,
    collector: Collector[W],
    timed: Callable[[ProbeClient, Deadline], W],
    bar: Bar,
    *,
    timeout_s: float,
    probe_file: Path = PROBE,
) -> None:
    """`timed` in one fresh process after the other, until the collector wants no more. Raises ChannelError."""
    settings, count = collector.settings, 0
    while collector.wanted():
        collector.add(in_fresh_process(session, settings, timed, timeout_s=timeout_s, probe_file=probe_file))
        count += 1
        bar.advance(1 if count <= settings.processes else 0, collector.note())


def cool_down(
    client: ProbeClient,
    settings: MeasureSettings,
    deadline: Deadline,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the device is as cool as the settings ask, or the time is spent: what it measures then is tainted.

    Raises ChannelError where the device does not tell its temperature.
    """
    if settings.cool_below_c is None:
        return
    # Not all of the time the process has: it must also race.
    enough = Deadline.after(min(_COOLING_S, deadline.left() / 3))
    while True:
        temperature = client.state(deadline).get("temperature_c")
        if not isinstance(temperature, (int, float)):
            raise ChannelError("refused", "the device does not tell its temperature", "leave out --cool-below")
        if temperature <= settings.cool_below_c or not enough.left():
            return
        sleep(min(_LOOK_S, enough.left()))


def median_or_none(values: Sequence[float | None]) -> float | None:
    """The median, or None where a value is missing."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


def memory_processes(session: Session, settings: MeasureSettings) -> int:
    """How many fresh processes read memory: five, or on an emulated device, which repeats exactly, the settings'."""
    return settings.processes if session.spec.unit == "instructions" else _MEMORY_PROCESSES


@dataclass(frozen=True, slots=True)
class _Memory:
    candidate: int
    baseline: int
    method: str


def _memories(
    session: Session,
    settings: MeasureSettings,
    ours: Pushed,
    theirs: Pushed,
    count: int,
    timeout_s: float,
    probe_file: Path,
    bar: Bar,
) -> Iterator[_Memory]:
    for index in range(count):

        def read(client: ProbeClient, deadline: Deadline, swap: bool = bool(index % 2)) -> _Memory:
            client.hello([ours, theirs], deadline)
            if swap:
                baseline, method = client.memory(theirs, deadline)
                candidate, _ = client.memory(ours, deadline)
            else:
                candidate, method = client.memory(ours, deadline)
                baseline, _ = client.memory(theirs, deadline)
            return _Memory(candidate, baseline, method)

        yield in_fresh_process(session, settings, read, timeout_s=timeout_s, probe_file=probe_file)
        bar.advance()


def _interval(races: Sequence[Race], *, relative: bool) -> Interval | None:
    """The figure's that is judged; None where a single process says nothing of how fresh ones differ."""
    if len(races) < 2:
        return None
    raced = Raced(tuple(races), 0, "s", {})
    return cost_interval(raced.samples, raced.against, raced.process, relative=relative)

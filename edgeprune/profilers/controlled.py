"""Two files raced together with a control arm: a copy of the first, which shows what noise alone makes of a file.

Every figure comes from fresh processes. In each of a race B is timed against A, and the copy against A; in others each
is run again and again for p90, or has its memory read. The order changes from process to process.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import MeasureSettings, Verdict
from edgeprune.core.progress import Bar, Progress, Silent
from edgeprune.core.session import Session
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, in_fresh_process, push_patiently
from edgeprune.profilers.evidence import Evidence, exactly, from_quotient, paired
from edgeprune.profilers.external import external_files
from edgeprune.profilers.fresh import Collector, W, cool_down, gather, memory_processes
from edgeprune.profilers.gate import FigureName
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.once import run_once
from edgeprune.profilers.predict import longest_example
from edgeprune.profilers.profile import RACE_ROUND_S, RACE_ROUNDS, RACE_RUNS
from edgeprune.profilers.replies import Race
from edgeprune.profilers.statistics import Interval, percentile
from edgeprune.profilers.verdict import State, judge

_TIMEOUT_S = 900.0
#: Runs and seconds of each file in each process that p90 comes from: 100 runs tell it.
_RUNS, _RUNS_S, _LONGEST_S = 120, 0.1, 30.0


@dataclass(frozen=True, slots=True)
class Raced:
    """What one process of a race found out: B against A, the copy against A, the states before and after both."""

    race: Race
    control: Race
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Timed:
    """Single runs of one process. `a`, `copy`, `b`: what 90 % of each one's runs do not exceed."""

    a: float | None
    copy: float | None
    b: float | None
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Heap bytes that each held in one process."""

    a: int
    copy: int
    b: int


@dataclass(frozen=True, slots=True)
class Controlled:
    """All processes that count."""

    unit: Unit
    facts: Mapping[str, Any]
    settings: MeasureSettings
    races: tuple[Raced, ...]
    #: Races thrown away because the device was throttled or busy.
    rejected: int
    timed: tuple[Timed, ...]
    held: tuple[Held, ...]
    #: SHA-256 and bytes of A and of B, weights outside of them included.
    sha256: tuple[str, str]
    bytes: tuple[int, int]

    @property
    def process(self) -> tuple[int, ...]:
        """The process of each round of `race`; `control` has its own."""
        return _process([each.race for each in self.races])

    @property
    def latency(self) -> Interval | None:
        """B's cost as a share of A's."""
        return _quotient([each.race for each in self.races], self.unit)

    @property
    def control(self) -> Interval | None:
        """The copy's cost as a share of A's."""
        return _quotient([each.control for each in self.races], self.unit)

    @property
    def judged(self) -> tuple[Verdict, str]:
        """How far to trust the race, and what to do about it."""
        states = tuple(state for each in self.races for state in each.states)
        return judge(states, self.latency, self.settings)


def race_controlled(
    session: Session,
    settings: MeasureSettings,
    files: tuple[Path, Path],
    given: Sequence[GivenInputs],
    wanted: Collection[FigureName],
    progress: Progress | None = None,
    *,
    longest_s: float | None = None,
    probe_file: Path = PROBE,
) -> Controlled:
    """Race A and B (`files`) and a copy of A in `settings.processes` fresh processes, or more (see `Collector`).

    `given` has an entry a file; of what is `wanted` only p90 and memory cost processes of their own. The device keeps
    files by their content, so the copy is opened from the same place, as a model of its own.

    Raises UsageError where A and B do not take the same inputs, DeviceError where one of them does not run.
    """
    settings = replace(settings, rounds=RACE_ROUNDS, round_s=RACE_ROUND_S, min_runs=RACE_RUNS)
    readings = memory_processes(session, settings) if "memory" in wanted else 0
    timings = settings.processes if "p90" in wanted and session.spec.unit != "instructions" else 0
    work = _Work(session, settings, files, given, probe_file)
    with (progress or Silent()).bar("fresh processes", 2 + settings.processes + timings + readings) as bar:
        work.run_both(longest_s or longest_example(session), bar)
        races = work.race(bar)
        timed = work.time(bar) if timings else ()
        held = work.read_memory(readings, bar)
    return Controlled(
        unit=work.unit,
        facts={**session.facts(), **work.facts},
        settings=settings,
        races=tuple(races.kept()),
        rejected=races.rejected,
        timed=timed,
        held=held,
        sha256=(work.a.content, work.b.content),
        bytes=(_bytes(files[0]), _bytes(files[1])),
    )


def evidence_of(found: Controlled) -> dict[FigureName, Evidence]:
    """What a race tells of each figure; a figure that it has not is missing."""
    sides = [[each.race.against for each in found.races], [each.race.samples for each in found.races]]
    a, b = (statistics.geometric_mean(statistics.median(samples) for samples in side) for side in sides)
    told = {
        "latency": from_quotient(found.unit, a, b, found.latency, found.control),
        "bytes": exactly("B", *found.bytes),
    }
    loads = [
        (each.race.against_load_s, each.control.against_load_s, each.control.load_s, each.race.load_s)
        for each in found.races
    ]
    percentiles = [(each.a, each.a, each.copy, each.b) for each in found.timed]
    # A reading of no bytes at all would have no quotient.
    heaps = [tuple(float(max(1, held)) for held in (each.a, each.a, each.copy, each.b)) for each in found.held]
    time_unit: Unit = "s" if found.unit == "instructions" else found.unit
    for name, rows, unit in (("load", loads, time_unit), ("p90", percentiles, found.unit), ("memory", heaps, "B")):
        known = [row for row in rows if None not in row]
        if known and len(known) == len(rows):
            told[name] = _of_processes(known, unit, found.unit)  # type: ignore[arg-type]  # None is in no row
    return told  # type: ignore[return-value]  # the names are figures


class _Work:
    """Two files on a device, and what is done with them there."""

    def __init__(
        self,
        session: Session,
        settings: MeasureSettings,
        files: tuple[Path, Path],
        given: Sequence[GivenInputs],
        probe_file: Path,
    ) -> None:
        self._session, self._settings, self._files, self._probe = session, settings, files, probe_file
        self.a, self.b = (push_patiently(session, *each) for each in zip(files, given, strict=True))
        #: A, its copy, B.
        self._arms = (self.a, replace(self.a, name=f"a copy of {files[0].name}"), self.b)
        self._turns = itertools.count()
        self.unit: Unit = session.spec.unit
        self.facts: Mapping[str, Any] = {}

    def run_both(self, longest_s: float, bar: Bar) -> None:
        """Raises DeviceError where one of them does not run."""
        for file, pushed in zip(self._files, (self.a, self.b), strict=True):
            what = f"{file.name} cannot be measured on {self._session.spec.name}"
            self._told(what, lambda pushed=pushed: run_once(self._session, self._settings, pushed, longest_s))  # type: ignore[misc]
            bar.advance(1, f"{file.name} runs")

    def race(self, bar: Bar) -> Collector[Raced]:
        """B and the copy, each against A."""

        def both(client: ProbeClient, deadline: Deadline) -> Raced:
            self._hello(client, deadline)
            turn = [1, 2] if next(self._turns) % 2 else [2, 1]
            races = {arm: client.race(self._arms[arm], self._arms[0], deadline) for arm in turn}
            self._check_alike(races[1], races[2])
            return Raced(races[2], races[1], _around(races[turn[0]].states, races[turn[1]].states))

        collector: Collector[Raced] = Collector(self._settings, self._interval)
        self._told(self._raced, lambda: self._gather(collector, both, bar))
        return collector

    def time(self, bar: Bar) -> tuple[Timed, ...]:
        """Single runs of each, one file after the other; nothing where the device tells none."""

        def all_three(client: ProbeClient, deadline: Deadline) -> Timed:
            self._hello(client, deadline)
            if "single" not in client.ops:
                return Timed(None, None, None, ())
            turn = self._turn()
            runs = {arm: client.single(self._arms[arm], _LONGEST_S, deadline) for arm in turn}
            a, copy, b = (percentile(runs[arm].samples, 90) for arm in range(3))
            return Timed(a, copy, b, _around(runs[turn[0]].states, runs[turn[-1]].states))

        settings = replace(self._settings, min_runs=_RUNS, round_s=_RUNS_S)
        collector: Collector[Timed] = Collector(settings, lambda _: None)
        self._told(self._raced, lambda: self._gather(collector, all_three, bar))
        return tuple(collector.kept())

    def read_memory(self, count: int, bar: Bar) -> tuple[Held, ...]:
        """In so many processes."""

        def read(client: ProbeClient, deadline: Deadline) -> Held:
            client.hello([self.a, self.b], deadline)
            held = {arm: client.memory(self._arms[arm], deadline)[0] for arm in self._turn()}
            return Held(*(held[arm] for arm in range(3)))

        def all_of_them() -> None:
            for _ in range(count):
                found.append(
                    in_fresh_process(self._session, self._settings, read, timeout_s=_TIMEOUT_S, probe_file=self._probe)
                )
                bar.advance()

        found: list[Held] = []
        self._told(self._raced, all_of_them)
        return tuple(found)

    @property
    def _raced(self) -> str:
        a, b = self._files
        return f"{b.name} and {a.name} cannot be raced on {self._session.spec.name}"

    def _gather(self, collector: Collector[W], work: Callable[[ProbeClient, Deadline], W], bar: Bar) -> None:
        gather(self._session, collector, work, bar, timeout_s=_TIMEOUT_S, probe_file=self._probe)

    def _told(self, what: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except ChannelError as error:
            raise DeviceError(f"{what}: {error.message}", error.hint, retryable=error.retryable) from error

    def _hello(self, client: ProbeClient, deadline: Deadline) -> None:
        # The first load of a process pays for what the runtime does once, so no timed load is the first.
        self.facts = client.hello([self.a], deadline)
        self.unit = client.unit
        cool_down(client, self._settings, deadline)

    def _turn(self) -> list[int]:
        """The three, each first as often as the others."""
        first = next(self._turns) % 3
        return [(first + arm) % 3 for arm in range(3)]

    def _interval(self, raced: Sequence[Raced]) -> Interval | None:
        return _quotient([each.race for each in raced], self.unit) if len(raced) > 1 else None

    def _check_alike(self, control: Race, race: Race) -> None:
        shapes = [[(fed.shape, fed.dtype) for fed in each.opened.inputs] for each in (control, race)]
        if shapes[0] != shapes[1]:
            told = [", ".join(f"{'x'.join(map(str, shape))} {dtype}" for shape, dtype in each) for each in shapes]
            a, b = (file.name for file in self._files)
            raise UsageError(
                f"{a} takes {told[0]}, and {b} takes {told[1]}: they were not measured alike",
                "give open sizes with --shape, and compare files of the same batch",
            )


def _around(first: tuple[State, ...], last: tuple[State, ...]) -> tuple[State, ...]:
    return (first[0], last[-1]) if first and last else ()


def _of_processes(rows: Sequence[tuple[float, float, float, float]], unit: Any, counted: Unit) -> Evidence:
    """Of A, A beside its copy, the copy, B: a figure each in every process."""
    a, beside, copy, b = zip(*rows, strict=True)
    process = range(len(rows))
    return from_quotient(
        unit,
        statistics.geometric_mean(a),
        statistics.geometric_mean(b),
        paired(b, a, process, counted),
        paired(copy, beside, process, counted),
    )


def _quotient(races: Sequence[Race], unit: Unit) -> Interval | None:
    samples = [sample for race in races for sample in race.samples]
    against = [sample for race in races for sample in race.against]
    return paired(samples, against, _process(races), unit)


def _process(races: Sequence[Race]) -> tuple[int, ...]:
    return tuple(index for index, race in enumerate(races) for _ in race.samples)


def _bytes(file: Path) -> int:
    return file.stat().st_size + sum(each.stat().st_size for each in external_files(file).values())

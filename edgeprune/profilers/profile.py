"""What a model file costs on a device, by itself or beside another: `edgeprune profile`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Failure, MeasureSettings
from edgeprune.core.progress import Bar, Progress, Silent
from edgeprune.core.session import Session
from edgeprune.devices.channel import ChannelError, is_away
from edgeprune.profilers.client import ProbeClient, in_fresh_process, push_patiently
from edgeprune.profilers.external import external_files
from edgeprune.profilers.fresh import Collector, cool_down, median_or_none, memory_processes, race_fresh
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.once import run_once
from edgeprune.profilers.operators import OPERATOR_RUNS
from edgeprune.profilers.predict import longest_example
from edgeprune.profilers.recognition import runtime_of
from edgeprune.profilers.records import Comparison, External, Profile
from edgeprune.profilers.replies import Opened, Operator, Single, Throughput
from edgeprune.profilers.statistics import Interval, percentile, quotient_interval
from edgeprune.profilers.verdict import judge

T = TypeVar("T")

_TIMEOUT_S = 900.0
#: A process stops timing after so long, also before it has its minimum of runs.
_LONGEST_S = 30.0
_THROUGHPUT_S = 2.0
#: Rounds of a race: half of what a process of `profile` spends otherwise goes into each.
RACE_ROUNDS, RACE_ROUND_S, RACE_RUNS = 15, 0.01, 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found out beside latency and memory."""

    throughput: bool = False
    operators: bool = False


def profile_files(
    session: Session,
    files: Sequence[Path],
    settings: MeasureSettings,
    given: Sequence[GivenInputs],
    wanted: Wanted,
    progress: Progress | None = None,
    *,
    longest_s: float | None = None,
) -> list[Profile | Failure]:
    """Profile every file in fresh processes: process i of each file before process i + 1 of any.

    Before that each is run once; one inference may take `longest_s` (None: `longest_example`), or the file fails.

    `settings` holds for each, with the runtime of its type; `given` has an entry a file. A file that cannot be run
    becomes a Failure, and the others go on. Raises DeviceError where the device is lost or has no runtime, UsageError
    for a file that is none, or for an input that was given and no file has.
    """
    several = len({str(file) for file in files}) > 1
    works = [
        _Work(session, file, replace(settings, runtime=runtime_of(file)), each, wanted, f"{file.name}:" * several)
        for file, each in zip(files, given, strict=True)
    ]
    readings = memory_processes(session, settings)
    extra = wanted.throughput + wanted.operators
    watch = progress or Silent()
    with watch.bar("fresh processes", len(files) * (1 + settings.processes + readings + extra)) as bar:
        for work in works:
            work.step(lambda work=work: work.run_once(longest_s or longest_example(session)), bar)  # type: ignore[misc]
        timed = 0
        while untimed := [work for work in works if work.more_to_time()]:
            timed += 1
            for work in untimed:
                work.step(work.time, bar, timed <= settings.processes)
            if timed == 1:
                _check_names(works)
        for _ in range(readings):
            for work in works:
                work.step(work.read_memory, bar)
        for work in works:
            if wanted.throughput:
                work.step(work.run_streams, bar)
            if wanted.operators:
                work.step(work.time_operators, bar)
    return [work.failure or work.profile() for work in works]


def compare_file(
    session: Session,
    profile: Profile,
    against: Profile,
    settings: MeasureSettings,
    given: GivenInputs,
    against_given: GivenInputs,
    progress: Progress | None = None,
) -> Comparison:
    """Race a profiled file with `against` (see `race_fresh`), of the same runtime, fed alike. Raises DeviceError."""
    watch = progress or Silent()
    file, other = Path(profile.file), Path(against.file)
    settings = replace(
        settings,
        runtime=profile.settings.runtime,
        rounds=RACE_ROUNDS,
        round_s=RACE_ROUND_S,
        min_runs=RACE_RUNS,
    )
    try:
        ours, theirs = (push_patiently(session, each, known) for each, known in ((file, given), (other, against_given)))
        with watch.bar(f"{file.name} against {other.name}", settings.processes) as bar:
            raced = race_fresh(session, settings, ours, theirs, bar, timeout_s=_TIMEOUT_S)
    except ChannelError as error:
        raise DeviceError(
            f"{file.name} and {other.name} cannot be raced: {error.message}", error.hint, retryable=error.retryable
        ) from error
    verdict, advice = judge(raced.states, raced.judged, settings)
    return Comparison(
        file=profile.file,
        against=against.file,
        unit=raced.unit,
        latency=raced.interval,
        memory=profile.peak_bytes / max(1, against.peak_bytes),
        bytes=profile.bytes / max(1, against.bytes),
        samples=raced.samples,
        against_samples=raced.against,
        process=raced.process,
        verdict=verdict,
        advice=advice,
        rejected=raced.rejected,
        states=raced.states,
        settings=settings,
    )


class _Work:
    """One file on its way to a profile."""

    def __init__(
        self,
        session: Session,
        file: Path,
        settings: MeasureSettings,
        given: GivenInputs,
        wanted: Wanted,
        prefix: str,
    ) -> None:
        self._session = session
        self._wanted = wanted
        self._file = file
        self._settings = settings
        self._pushed = replace(push_patiently(session, file, given), prefix=prefix)
        self._timings: Collector[Single] = Collector(settings, _interval)
        self._memory: list[tuple[int, str]] = []
        self._throughput: Throughput | None = None
        self._operators: tuple[tuple[Operator, ...] | None, str] = (None, "")
        self._facts: Mapping[str, Any] = {}
        self._unit: Unit = "s"
        self._opened = Opened()
        self._single_runs = True
        self.failure: Failure | None = None

    def step(self, work: Callable[[], str], bar: Bar, foreseen: bool = True) -> None:
        """Do one thing, unless the file has failed already; a failure of the file's own is kept."""
        note = ""
        if self.failure is None:
            try:
                note = work()
            except ChannelError as error:
                if is_away(error):
                    raise
                self.failure = error.failure()
        bar.advance(1 if foreseen else 0, note)

    def names(self) -> tuple[set[str], set[str]]:
        """Names that were given for several files, and those of them that this one does not have."""
        return set(self._pushed.shared), set(self._opened.unused)

    def more_to_time(self) -> bool:
        """Whether one more process is to time it."""
        return self.failure is None and self._timings.wanted()

    def run_once(self, longest_s: float) -> str:
        """Run it once, before it is measured."""
        ran = run_once(self._session, self._settings, self._pushed, longest_s)
        return f"{self._file.name} runs" if ran else ""

    def time(self) -> str:
        """Time it in one more process."""

        def timed(client: ProbeClient, deadline: Deadline) -> Single:
            cool_down(client, self._settings, deadline)
            if self._single_runs:
                return client.single(self._pushed, _LONGEST_S, deadline)
            race = client.race(self._pushed, None, deadline)
            count = len(race.samples)
            return Single(race.samples, count, race.warmups, race.load_s, race.first_s, race.states, race.opened)

        single = self._in_process(timed)
        self._opened = single.opened
        self._timings.add(single)
        return f"{self._file.name} {self._timings.note()}"

    def read_memory(self) -> str:
        """Read its memory in one more process."""
        self._memory.append(self._in_process(lambda client, deadline: client.memory(self._pushed, deadline)))
        return f"{self._file.name} memory"

    def run_streams(self) -> str:
        """Run as many at once as the device has cores for."""

        def run(client: ProbeClient, deadline: Deadline) -> Throughput:
            streams = max(1, int(self._facts.get("cores") or 1) // self._settings.threads)
            return client.throughput(self._pushed, streams, _THROUGHPUT_S, deadline)

        self._throughput = self._in_process(run)
        return f"{self._file.name} throughput"

    def time_operators(self) -> str:
        """Time every operator."""

        def run(client: ProbeClient, deadline: Deadline) -> tuple[tuple[Operator, ...] | None, str]:
            return client.operators(self._pushed, OPERATOR_RUNS, self._session.scratch("operators"), deadline)

        self._operators = self._in_process(run)
        return f"{self._file.name} operators"

    def profile(self) -> Profile:
        """What was found out."""
        timings = self._timings.kept()
        states = tuple(state for timing in timings for state in timing.states)
        interval = _interval(timings)
        external = tuple(
            External(place, self._pushed.beside[place].sha256, file.stat().st_size)
            for place, file in external_files(self._file).items()
        )
        verdict, advice = judge(states, interval, self._settings)
        samples = tuple(sample for timing in timings for sample in timing.samples)
        if self._unit == "instructions" and len(set(samples)) == 1:
            verdict, advice = "stable", ""
        readings = tuple(held for held, _ in self._memory)
        peak = int(statistics.median(readings))
        return Profile(
            file=str(self._file),
            sha256=self._pushed.content,
            bytes=self._file.stat().st_size + sum(each.bytes for each in external),
            external=external,
            unit=self._unit,
            samples=samples,
            process=tuple(index for index, timing in enumerate(timings) for _ in timing.samples),
            count=sum(timing.count for timing in timings),
            warmups=tuple(sample for timing in timings for sample in timing.warmups),
            load_s=median_or_none([timing.load_s for timing in timings]),
            first_s=median_or_none([timing.first_s for timing in timings]),
            single_runs=self._single_runs,
            interval=interval,
            memory_readings=readings,
            memory_method=self._memory[0][1],
            throughput=self._throughput,
            operators=self._operators[0],
            operators_why=self._operators[1],
            verdict=verdict,
            advice=advice,
            rejected=self._timings.rejected,
            states=states,
            settings=self._settings,
            shapes=self._pushed.shapes or {},
            inputs=self._opened.inputs,
            signature=self._opened.signature,
            signatures=self._opened.signatures,
            binding=self._opened.binding,
            facts={**self._session.facts(), **self._facts},
            median=statistics.median(statistics.median(timing.samples) for timing in timings),
            p90=percentile(samples, 90) if self._single_runs else None,
            p99=percentile(samples, 99) if self._single_runs else None,
            peak_bytes=peak,
            memory_spread=(max(readings) - min(readings)) / max(1, peak),
        )

    def _in_process(self, work: Callable[[ProbeClient, Deadline], T]) -> T:
        """`work` in a fresh process whose runtime has opened the file once, which pays for what only happens once."""

        def warmed(client: ProbeClient, deadline: Deadline) -> T:
            self._facts = client.hello([self._pushed], deadline)
            self._unit = client.unit
            self._single_runs = "single" in client.ops
            # Asked before anything is measured, since all of it would be lost.
            for op, flag, asked in (
                ("throughput", "--throughput", self._wanted.throughput),
                ("operators", "--per-operator", self._wanted.operators),
            ):
                if asked and op not in client.ops:
                    said = f"device {self._session.spec.name} does not tell times of that kind"
                    raise ChannelError("refused", said, f"leave out {flag}")
            return work(client, deadline)

        return in_fresh_process(self._session, self._settings, warmed, timeout_s=_TIMEOUT_S)


def _check_names(works: Sequence[_Work]) -> None:
    """Raises UsageError for an input that was given for several files and that none of those that ran has."""
    known = [work.names() for work in works if work.failure is None]
    if len(known) < len(works):
        return  # a file that did not run may be the one that has it
    shared = {name for names, _ in known for name in names}
    unused = shared - {name for names, left in known for name in names - left}
    if unused:
        names = ", ".join(sorted(unused))
        raise UsageError(f"no file has an input {names}", "see the inputs: edgeprune profile FILE --json")


def _interval(timings: Sequence[Single]) -> Interval | None:
    """Of the geometric mean of the processes' medians."""
    if len(timings) < 2:
        return None
    medians = [statistics.median(timing.samples) for timing in timings]
    return quotient_interval(medians, [1.0] * len(medians), range(len(medians)))

"""The final comparison: candidate and baseline in fresh processes, latency and memory in different ones."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.core.clock import Deadline
from edgeprune.core.devices import Session
from edgeprune.core.progress import Progress, Silent
from edgeprune.core.types import Failure, Measurement, MeasureSettings
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import PROBE, ProbeClient, Pushed, Race, in_fresh_process, push

T = TypeVar("T")

_MEMORY_PROCESSES = 5


@dataclass(frozen=True, slots=True)
class _Timing:
    race: Race
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Memory:
    candidate: int
    baseline: int
    method: str


def compare_fresh(
    session: Session,
    settings: MeasureSettings,
    candidate: Path,
    baseline: Path,
    progress: Progress | None = None,
    *,
    timeout_s: float = 300.0,
    probe_file: Path = PROBE,
) -> Measurement | Failure:
    """Race `candidate` and `baseline` in `settings.processes` fresh processes (5 or more for an interval worth having).

    Memory, load and first-inference time are medians over the processes; five further processes only read memory, the
    order of the two files alternating. A process that fails is repeated once; each has `timeout_s`.

    Raises ValueError unless `settings.processes` is above 0, and DeviceError where a file cannot be pushed or the
    runtime is not there.
    """
    if settings.processes < 1:
        raise ValueError("a fresh comparison needs settings.processes >= 1")
    ours, theirs = push(session, candidate), push(session, baseline)
    watch = progress or Silent()

    def repeat(count: int, work: Callable[[ProbeClient, Pushed, Pushed, bool, Deadline], T]) -> Iterator[T]:
        for index in range(count):

            def once(client: ProbeClient, deadline: Deadline, swap: bool = bool(index % 2)) -> T:
                return work(client, ours, theirs, swap, deadline)

            yield in_fresh_process(session, settings, once, timeout_s=timeout_s, probe_file=probe_file)
            bar.advance()

    try:
        with watch.task("fresh processes", settings.processes + _MEMORY_PROCESSES) as bar:
            timings = list(repeat(settings.processes, _time))
            memories = list(repeat(_MEMORY_PROCESSES, _memory))
    except ChannelError as error:
        return error.failure()
    finally:
        for pushed in (ours, theirs):
            session.remove(pushed.path)
    return Measurement(
        unit="s",
        samples=tuple(sample for timing in timings for sample in timing.race.samples),
        warmups=tuple(sample for timing in timings for sample in timing.race.warmups),
        against=tuple(sample for timing in timings for sample in timing.race.against),
        peak_bytes=int(statistics.median(memory.candidate for memory in memories)),
        against_peak_bytes=int(statistics.median(memory.baseline for memory in memories)),
        memory_method=memories[0].method,
        sha256=ours.sha256,
        against_sha256=theirs.sha256,
        device=session.spec.name,
        facts={**session.facts(), **timings[0].facts},
        settings=settings,
        process=tuple(index for index, timing in enumerate(timings) for _ in timing.race.samples),
        load_s=statistics.median(timing.race.load_s for timing in timings),
        first_s=statistics.median(timing.race.first_s for timing in timings),
    )


def _time(client: ProbeClient, ours: Pushed, theirs: Pushed, _: bool, deadline: Deadline) -> _Timing:
    # The first load of a process pays for what the runtime does once, so neither model's timed load is the first.
    facts = client.hello([theirs], deadline)
    return _Timing(client.race(ours, theirs, deadline), facts)


def _memory(client: ProbeClient, ours: Pushed, theirs: Pushed, swap: bool, deadline: Deadline) -> _Memory:
    client.hello([ours, theirs], deadline)
    if swap:
        baseline, method = client.memory(theirs, deadline)
        candidate, _ = client.memory(ours, deadline)
    else:
        candidate, method = client.memory(ours, deadline)
        baseline, _ = client.memory(theirs, deadline)
    return _Memory(candidate, baseline, method)

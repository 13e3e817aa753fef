"""What was measured before, of one file: the figures of a stored profile or run, to be compared as recorded.

Records measured in other conditions are refused. The control arm is a file that both records have: what it seems to
have changed by is what the sessions differ by.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from edgeprune.core.errors import UsageError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Verdict
from edgeprune.core.reading import Source, short
from edgeprune.core.schema import PROFILE_SCHEMA, read_record
from edgeprune.core.text import shorten
from edgeprune.profilers.evidence import Evidence, exactly, from_quotient
from edgeprune.profilers.gate import FigureName
from edgeprune.profilers.loop import KEYS
from edgeprune.profilers.records import NotProfiled, Profile, Profiles
from edgeprune.profilers.statistics import Interval, percentile, unpaired_interval

#: Hash of the control's own file, and its record.
Others = Mapping[str, "Recorded"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One file's figures: of each of its fresh processes, or only one where no more was kept."""

    file: str
    sha256: str
    bytes: int
    unit: Unit
    #: Medians of the processes.
    latency: tuple[float, ...]
    #: Of the processes, or of all of them together.
    p90: tuple[float, ...]
    load_s: float | None
    memory: tuple[int, ...]
    #: SHA-256 of the file that it was raced with, and its cost as a share of that one's, of each process of the race.
    raced_with: str = ""
    quotients: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A stored profile or run: the file that counts, the others that were measured with it, and how all that was."""

    given: str
    subject: Recorded
    others: Others
    device: str
    emulated: bool
    facts: Mapping[str, Any]
    #: By what it is called in messages; records are alike where all of these are equal.
    conditions: Mapping[str, Any]
    #: How far its figures can be trusted, and why.
    verdict: Verdict
    advice: str


def read_profile(path: Path) -> Record:
    """What `edgeprune profile FILE [--against OTHER] --json` printed.

    Raises UsageError for a file that is none, of another version, or of several files.
    """
    hint = "write it with: edgeprune profile FILE --json > FILE.json"
    told = read_record(Source(path, UsageError, hint, "the profile"), Profiles, PROFILE_SCHEMA, hint)
    files = told.profiles[:-1] if told.against is not None else told.profiles
    if len(files) != 1:
        raise UsageError(f"{path} has profiles of {len(files)} files, expected one", hint)
    subject = files[0]
    if isinstance(subject, NotProfiled):
        raise UsageError(f"{path}: {subject.file} could not be profiled: {subject.failure.message}", hint)
    others = [_of_profile(each) for each in told.profiles if isinstance(each, Profile)]
    first = others[0]
    for race in told.comparisons[:1]:
        shares = quotients(race.samples, race.against_samples, race.process)
        first = replace(first, raced_with=others[-1].sha256, quotients=shares)
    return Record(
        given=str(path),
        subject=first,
        others={each.sha256: each for each in others[1:]},
        device=told.device.name,
        emulated=told.device.emulated,
        facts=subject.facts,
        conditions={
            "the device": told.device.name,
            "the unit": subject.unit,
            **facts_of(subject.facts),
            "the runtime": subject.settings.runtime,
            "threads": subject.settings.threads,
            "inputs": [[list(fed.shape), fed.dtype, fed.how] for fed in subject.inputs],
            "--cool-below": subject.settings.cool_below_c,
            "warm-up": [subject.settings.warmup_runs, subject.settings.warmup_s],
            "how memory was read": subject.memory_method,
        },
        verdict=subject.verdict,
        advice=subject.advice,
    )


def facts_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a device says of itself that figures depend on."""
    return {key.replace("_", " "): facts.get(key) for key in KEYS if key in facts}


def check_alike(a: Record, b: Record, hint: str) -> None:
    """Raises UsageError, with `hint` as what to type, where A and B were measured in other conditions."""
    for name in {**a.conditions, **b.conditions}:
        values = [each.conditions.get(name) for each in (a, b)]
        if values[0] != values[1]:
            told = [shorten(str(value), 60) if isinstance(value, str) else short(value) for value in values]
            raise UsageError(
                f"they were not measured alike: {name} is {told[0]} in {a.given} and {told[1]} in {b.given}", hint
            )


def control_of(a: Record, b: Record) -> tuple[Recorded, Recorded] | None:
    """The same file as A's record and as B's have it: the one that counts, where it is the same in both, or another."""
    if a.subject.sha256 == b.subject.sha256:
        return a.subject, b.subject
    shared = next((sha256 for sha256 in a.others if sha256 in b.others), None)
    return None if shared is None else (a.others[shared], b.others[shared])


def evidence_of(a: Record, b: Record) -> dict[FigureName, Evidence]:
    """What two records that are alike tell of each figure but quality; one that either has not is missing.

    Latencies of files that were both raced with the same third one are compared as shares of that one's: what the
    sessions differ by cancels, and needs no floor.
    """
    ours, theirs, control = a.subject, b.subject, control_of(a, b)
    told: dict[FigureName, Evidence] = {"bytes": exactly("B", ours.bytes, theirs.bytes)}

    def add(name: FigureName, unit: Any, points: Sequence[Sequence[float]], copies: Sequence[Sequence[float]]) -> None:
        if all(points):
            first, second = (statistics.geometric_mean(each) for each in points)
            told[name] = from_quotient(unit, first, second, _unpaired(points, unit), _unpaired(copies, unit))

    def both(get: Callable[[Recorded], Sequence[float]]) -> tuple[list[Sequence[float]], list[Sequence[float]]]:
        return [get(each) for each in (ours, theirs)], [get(each) for each in control or ()] or [(), ()]

    add("latency", ours.unit, *both(lambda each: each.latency))
    add("p90", ours.unit, *both(lambda each: each.p90))
    if ours.raced_with and ours.raced_with == theirs.raced_with and "latency" in told:
        quotient = _unpaired((ours.quotients, theirs.quotients), ours.unit)
        if quotient is not None:
            same = quotient if ours.sha256 == theirs.sha256 else None
            told["latency"] = from_quotient(ours.unit, told["latency"].a, told["latency"].b, quotient, same)
    add(
        "load",
        "s" if ours.unit == "instructions" else ours.unit,
        *both(lambda each: () if each.load_s is None else (each.load_s,)),
    )
    # A reading of no bytes at all would have no quotient.
    add("memory", "B", *both(lambda each: tuple(float(max(1, held)) for held in each.memory)))
    return told


def _unpaired(both: Sequence[Sequence[float]], unit: str) -> Interval | None:
    """B's as a share of A's. Heap of which one reading is left was the median of several that hardly differ."""
    points, later = both
    if points and later and (unit == "instructions" or (unit == "B" and 1 in (len(points), len(later)))):
        share = statistics.median(later) / statistics.median(points)
        return Interval(share, share, share)
    return unpaired_interval(later, points) if min(len(points), len(later)) > 1 else None


def _of_profile(each: Profile) -> Recorded:
    processes = by_process(each.samples, each.process)
    tails = [percentile(samples, 90) for samples in processes] if each.single_runs else [None]
    known = tuple(tail for tail in tails if tail is not None)
    together = () if each.p90 is None else (each.p90,)
    return Recorded(
        file=each.file,
        sha256=each.sha256,
        bytes=each.bytes,
        unit=each.unit,
        latency=tuple(statistics.median(samples) for samples in processes),
        p90=known if len(known) == len(tails) else together,
        load_s=each.load_s,
        memory=each.memory_readings,
    )


def quotients(samples: Sequence[float], against: Sequence[float], process: Sequence[int]) -> tuple[float, ...]:
    """Of each fresh process the median of its rounds' quotients."""
    shares = [ours / theirs for ours, theirs in zip(samples, against, strict=True)]
    return tuple(statistics.median(each) for each in by_process(shares, process))


def by_process(samples: Sequence[float], process: Sequence[int]) -> list[list[float]]:
    """The samples of each fresh process."""
    pairs = sorted(zip(process, samples, strict=True))
    return [[sample for _, sample in group] for _, group in groupby(pairs, key=lambda pair: pair[0])]

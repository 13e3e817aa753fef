"""What `compare --json` prints, field by field (documented in docs/interfaces.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import MeasureSettings, Verdict
from edgeprune.core.schema import COMPARE_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.profilers.controlled import Controlled, Held, Timed
from edgeprune.profilers.evidence import Figure
from edgeprune.profilers.gate import FigureName, Gate
from edgeprune.profilers.records import ProfiledOn
from edgeprune.profilers.verdict import State


@dataclass(frozen=True, slots=True)
class Side:
    """What stands for A or for B: as it was given, and the model file that it comes to."""

    given: str
    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Control:
    """The file that was there twice. `copy`: raced along; `same`: A is B; `shared`: both records have it."""

    kind: Literal["copy", "same", "shared"]
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Rounds:
    """Costs, round by round, and the fresh process of each."""

    samples: tuple[float, ...]
    against: tuple[float, ...]
    process: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RawRace:
    """All raw figures of a race."""

    #: B against A; the copy against A.
    race: Rounds
    control: Rounds
    #: One entry a process.
    p90: tuple[Timed, ...]
    memory: tuple[Held, ...]
    #: Before and after each process of the race.
    states: tuple[State, ...]
    rejected: int
    settings: MeasureSettings
    verdict: Verdict
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """B beside A."""

    schema: int = COMPARE_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    #: "raced": now, on the device; else as recorded.
    kind: Literal["raced", "profiles", "runs"]
    a: Side
    b: Side
    device: ProfiledOn
    unit: Unit
    #: The metric of `quality`; None where nothing was judged by one.
    metric: str | None
    gate: Gate
    control: Control | None
    #: In the gate's order.
    figures: tuple[Figure, ...]
    #: "regression" where a figure is one, else "open" where one cannot be told, else "pass".
    answer: Literal["pass", "open", "regression"]
    regressions: tuple[FigureName, ...]
    #: What to know of it, a sentence each.
    notes: tuple[str, ...]
    #: None of records.
    race: RawRace | None


def answer_of(figures: tuple[Figure, ...]) -> Literal["pass", "open", "regression"]:
    """The verdict on all figures."""
    if any(each.regression for each in figures):
        return "regression"
    return "open" if any(each.verdict == "open" for each in figures) else "pass"


def raw_race(found: Controlled) -> RawRace:
    """What a race leaves."""
    verdict, advice = found.judged
    rounds = []
    for races in ([each.race for each in found.races], [each.control for each in found.races]):
        rounds.append(
            Rounds(
                samples=tuple(sample for race in races for sample in race.samples),
                against=tuple(sample for race in races for sample in race.against),
                process=tuple(index for index, race in enumerate(races) for _ in race.samples),
            )
        )
    return RawRace(
        race=rounds[0],
        control=rounds[1],
        p90=found.timed,
        memory=found.held,
        states=tuple(state for each in found.races for state in each.states),
        rejected=found.rejected,
        settings=found.settings,
        verdict=verdict,
        advice=advice,
    )

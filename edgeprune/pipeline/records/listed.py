"""What `edgeprune runs list` tells of the runs in a folder (documented in docs/interfaces.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeprune.core.budget import Answer
from edgeprune.core.schema import RUNS_SCHEMA
from edgeprune.core.version import VERSION

#: How a run stands. `running` to `interrupted` are as in result.json. `killed`: it says that it goes on, and nobody
#: does; `damaged`: its files cannot be read; `other version`: they are of another schema.
State = Literal[
    "running",
    "done",
    "budget-not-met",
    "worse",
    "impossible",
    "failed",
    "interrupted",
    "killed",
    "damaged",
    "other version",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run, or of one bound of a front."""

    #: The bound as it was written; "" for a run that is no front.
    bound: str = ""
    answer: Answer
    #: The file that was judged, relative to the run's folder; None where no network can keep the bound.
    file: str | None = None
    #: Its latency as a share of the unpruned file's.
    latency_share: float | None = None
    #: Its test score by the run's metric.
    quality: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One run folder."""

    name: str
    state: State
    #: When its state was last written: ISO 8601 with the time zone.
    when: str
    #: As in its settings; "" where they cannot be read.
    model: str = ""
    data: str = ""
    device: str = ""
    #: The stage it is in, or got to; "" where that is not known.
    stage: str = ""
    #: The process that runs it; "" where none does.
    owner: str = ""
    #: Why there is no outcome; "" where there is one, or it goes on.
    why: str = ""
    #: The metric of `quality`; None without an outcome.
    metric: str | None = None
    #: One entry; of a front one a bound, the loosest first; empty without an outcome.
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsList:
    """What `runs list --json` prints."""

    schema: int = RUNS_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    #: The newest first.
    runs: tuple[Listed, ...]

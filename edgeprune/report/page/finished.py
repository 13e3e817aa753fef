"""What a page is made of: finished runs as they were read, and checked, by whoever asks for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.trial import Trial
from edgeprune.report.front import Front
from edgeprune.report.table import Result

#: The 90th percentile of latencies, of the pruned file and of the unpruned one, by the path of the pruned; None: they
#: are too few.
Tails = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class Network:
    """A finished network: what `result.json` says of it, and what is not in there."""

    #: What it is called on the page: the run's name, of a front also the bound.
    name: str
    #: As it was given, so that commands on the page can be typed where the page was asked for.
    folder: Path
    result: Result
    tails: Tails
    #: The command that began the run.
    command: str
    #: In their order; empty for a network of a front, whose trials are the front's.
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class FrontRun:
    """A run with several bounds: what `front.json` says, and the networks of the bounds that have one."""

    name: str
    folder: Path
    front: Front
    #: The command that began the run.
    command: str
    networks: tuple[Network, ...]
    trials: tuple[Trial, ...]
    #: Bound and number of trials of each search, in their order; empty where that is not known.
    searches: tuple[tuple[str, int], ...]


Run = Network | FrontRun

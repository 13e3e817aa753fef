"""What the search tries."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Failure, Measurement


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was found out about one plan."""

    plan: PruningPlan
    #: The search's score: a share, of validation images, after a moment of tuning at most.
    accuracy: float
    #: Neurons of the original network over neurons left.
    ncr: float
    #: None where nothing is measured.
    cost: Measurement | Failure | None
    #: Size of its file.
    bytes: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate the search tried, appended to the store as it happens."""

    index: int
    candidate: Candidate
    reward: float
    seconds: float
    #: The actor's and the executed sparsity per step, shares in [0, 1].
    proposed: tuple[float, ...] = field(default=())
    executed: tuple[float, ...] = field(default=())

"""What the search tries."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeprune.core.design import Design, PruningPlan
from edgeprune.core.measurement import Failure, Measurement
from edgeprune.core.runtimes import Precision


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was found out about one design."""

    plan: PruningPlan
    #: The search's score: a share, of validation images, tuned for a moment at most; less what its precision loses.
    accuracy: float
    #: Neurons of the original network over neurons left.
    ncr: float
    #: None where nothing is measured.
    cost: Measurement | Failure | None
    #: Size of its file.
    bytes: int
    #: What its file computes with.
    precision: Precision = "fp32"

    @property
    def design(self) -> Design:
        """What was tried."""
        return Design(self.plan, self.precision)


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

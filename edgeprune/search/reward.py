"""What a candidate is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from edgeprune.core.errors import UsageError
from edgeprune.core.types import Failure, Measurement, PruningPlan


@dataclass(frozen=True, slots=True)
class Candidate:
    """What `evaluate` found out about one choice of widths."""

    plan: PruningPlan
    #: Share of the search's validation images classified right, no fine-tuning.
    accuracy: float
    #: Neurons of the original network over neurons left.
    ncr: float
    #: None where nothing is measured.
    cost: Measurement | Failure | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Reward:
    """r = min(acc/acc*, 1) + beta min(ncr/ncr*, 1) + gamma min(lat*/lat, 1) + delta min(mem*/mem, 1).

    The first two terms are [ACNN] (3) with the sign read as plus (the printed minus would punish accuracy); the last
    two are ours. Latency and memory are shares of the unpruned network's, measured in the same session, so lat* and
    mem* are shares too. A failed measurement earns nothing for them: no figure is invented.
    """

    accuracy: float
    ncr: float
    latency: float
    memory: float
    beta: float = 1.0
    gamma: float = 1.0
    delta: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            weight = field.name in ("beta", "gamma", "delta")
            if not math.isfinite(value) or value < 0 or (value == 0 and not weight):
                rule = "0 or more" if weight else "above 0"
                raise UsageError(f"the reward's {field.name} is {value}: expected a finite number {rule}")

    def __call__(self, candidate: Candidate) -> float:
        """The reward, between 0 and 1 + beta + gamma + delta. Raises UsageError where it is not finite."""
        value = min(candidate.accuracy / self.accuracy, 1.0) + self.beta * min(candidate.ncr / self.ncr, 1.0)
        if isinstance(candidate.cost, Measurement):
            value += self.gamma * min(self.latency / candidate.cost.quotient, 1.0)
            value += self.delta * min(self.memory / max(candidate.cost.memory_quotient, 1e-9), 1.0)
        if not math.isfinite(value):
            raise UsageError(
                f"the reward of a candidate is {value}, from an accuracy of {candidate.accuracy} and an NCR of "
                f"{candidate.ncr}",
                "check the network's outputs, and --beta, --gamma and --delta",
            )
        return value

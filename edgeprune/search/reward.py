"""What a candidate is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from edgeprune.core.errors import UsageError
from edgeprune.core.measurement import Measurement
from edgeprune.core.trial import Candidate

#: What a violation costs: this many times the share by which a bound is broken. A hundredth over the bound costs two
#: hundredths of the unpruned network's quality, far more than a hundredth of cost ever brought.
VIOLATION = 2.0


#: What a candidate is worth; higher is better.
Rewarding = Callable[[Candidate], float]


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
        _check(self, ("beta", "gamma", "delta"))

    def __call__(self, candidate: Candidate) -> float:
        """The reward, between 0 and 1 + beta + gamma + delta. Raises UsageError where it is not finite."""
        value = min(candidate.accuracy / self.accuracy, 1.0) + self.extras(candidate)
        return _finite(value, candidate)

    def extras(self, candidate: Candidate) -> float:
        """The terms of NCR, latency and memory."""
        value = self.beta * min(candidate.ncr / self.ncr, 1.0)
        if isinstance(candidate.cost, Measurement):
            value += self.gamma * min(self.latency / candidate.cost.quotient, 1.0)
            value += self.delta * min(self.memory / max(candidate.cost.memory_quotient, 1e-9), 1.0)
        return value


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on latency, memory and bytes, shares of the unpruned network, and the least NCR; None: no bound."""

    latency: float | None = None
    memory: float | None = None
    bytes: float | None = None
    ncr: float | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


@dataclass(frozen=True, slots=True)
class BoundedReward:
    """r = acc/acc* - kappa sum over bounds of max(0, x/x* - 1) + what is weighed by hand, kappa = `VIOLATION`.

    Quality inside the bounds: a broken bound costs in proportion, nothing is gained by going further than asked, and
    what nobody bounded weighs nothing. x is the measured latency, memory or size, x* its bound; for the rate x/x* is
    ncr*/ncr. A candidate that could not be measured breaks its bounds on latency and memory by the whole.

    `extras` are terms of `Reward` that somebody gave a weight to, of what is not bounded.
    """

    accuracy: float
    limits: Limits
    #: Size of the unpruned file.
    whole_bytes: int
    extras: Reward | None = None

    def __call__(self, candidate: Candidate) -> float:
        """The reward, 1 at the unpruned network's quality inside all bounds. Raises UsageError where not finite."""
        value = candidate.accuracy / self.accuracy - VIOLATION * math.fsum(self._violations(candidate))
        if self.extras is not None:
            value += self.extras.extras(candidate)
        return _finite(value, candidate)

    def _violations(self, candidate: Candidate) -> list[float]:
        limits, cost = self.limits, candidate.cost
        measured = cost if isinstance(cost, Measurement) else None
        over = []
        if limits.latency is not None:
            over.append(1.0 if measured is None else measured.quotient / limits.latency - 1.0)
        if limits.memory is not None:
            over.append(1.0 if measured is None else measured.memory_quotient / limits.memory - 1.0)
        if limits.bytes is not None and measured is not None:
            over.append(candidate.bytes / self.whole_bytes / limits.bytes - 1.0)
        if limits.ncr is not None:
            over.append(limits.ncr / candidate.ncr - 1.0)
        return [max(0.0, each) for each in over]


def _check(reward: Reward, weights: tuple[str, ...]) -> None:
    for field in fields(reward):
        value = getattr(reward, field.name)
        weight = field.name in weights
        if not math.isfinite(value) or value < 0 or (value == 0 and not weight):
            rule = "0 or more" if weight else "above 0"
            raise UsageError(f"the reward's {field.name} is {value}: expected a finite number {rule}")


def _finite(value: float, candidate: Candidate) -> float:
    if not math.isfinite(value):
        raise UsageError(
            f"the reward of a candidate is {value}, from an accuracy of {candidate.accuracy} and an NCR of "
            f"{candidate.ncr}",
            "check the network's outputs, and --beta, --gamma and --delta",
        )
    return value

"""Which trial is kept: bounds first, accuracy second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.core.types import Budget, Measurement, Trial


@dataclass(frozen=True, slots=True)
class Reference:
    """The unpruned network on the device, to which relative bounds refer: seconds (or instructions), bytes, bytes."""

    latency: float
    memory: float
    bytes: float


def excess(trial: Trial, budget: Budget, baseline: Reference) -> float:
    """By how much a trial misses its bounds: 0 when it meets all, else the largest relative excess.

    A trial without a measurement cannot be shown to meet a bound on latency or memory: infinite. `max_drop` is not
    judged here: the trials are not fine-tuned yet.
    """
    worst = 0.0
    cost = trial.cost
    for bound, value, reference in (
        (
            budget.max_latency,
            cost.quotient * baseline.latency if isinstance(cost, Measurement) else float("inf"),
            baseline.latency,
        ),
        (budget.max_memory, cost.peak_bytes if isinstance(cost, Measurement) else float("inf"), baseline.memory),
        (budget.max_bytes, trial.bytes or float("inf"), baseline.bytes),
    ):
        if bound is not None:
            worst = max(worst, value / bound.limit(reference) - 1.0)
    if budget.min_ncr is not None:
        worst = max(worst, budget.min_ncr / trial.ncr - 1.0)
    return worst


def rank(trials: Sequence[Trial], budget: Budget, baseline: Reference, chance: float = 0.0) -> list[Trial]:
    """Distinct plans, best first: those that meet every bound by accuracy, then the others by how nearly they do.

    Behind all of these come, in the same order, those whose accuracy is not above `chance`: how it ranks them is luck.
    """
    distinct = {trial.plan.key: trial for trial in reversed(trials)}
    missed = {key: excess(trial, budget, baseline) for key, trial in distinct.items()}
    return sorted(
        distinct.values(),
        key=lambda trial: (
            trial.accuracy <= chance,
            missed[trial.plan.key],
            -trial.accuracy,
            -trial.ncr,
            trial.index,
        ),
    )

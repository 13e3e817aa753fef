"""Which trials are kept: bounds first, accuracy second; of near-identical plans one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.core.types import Budget, Measurement, PruningPlan, Trial

#: Plans nearer than this (see `distance`) are near-identical: a tenth more channels in every group.
APART = 0.1


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


def choose_finalists(
    trials: Sequence[Trial], wanted: int, budget: Budget, baseline: Reference, chance: float, images: float
) -> tuple[list[Trial], Trial | None]:
    """Which of `trials` (best first) are tuned and compared, and which of them only because tuning may bring it back.

    Of the trials that meet every bound and score above `chance`: the best, then the next best that lies `APART` from
    all that were chosen, until there are `wanted`, or until a score on so many `images` is told from the best one:
    plans that are nearly the same, or worse, are not worth their epochs. So there may be fewer than `wanted`.

    Where no trial does: the nearest to its bounds, and beside it the first one at chance that meets them. A trial at
    chance stands for another that misses its bounds, never for one that meets them.
    """
    able = [t for t in trials if t.accuracy > chance and excess(t, budget, baseline) == 0.0]
    if able:
        return _spread(able, wanted, images), None
    nearest = list(trials[:1])
    guessing = [t for t in trials if t.accuracy <= chance and excess(t, budget, baseline) == 0.0]
    if not guessing or guessing[0] is nearest[0]:
        return nearest, None
    return [*nearest, guessing[0]], guessing[0]


def _spread(able: Sequence[Trial], wanted: int, images: float) -> list[Trial]:
    chosen = [able[0]]
    for trial in able[1:]:
        if len(chosen) == wanted or told_apart(able[0].accuracy, trial.accuracy, images):
            break
        if all(distance(trial.plan, other.plan) >= APART for other in chosen):
            chosen.append(trial)
    return chosen


def distance(one: PruningPlan, other: PruningPlan) -> float:
    """How far two plans' widths lie apart: |ln(a / b)|, averaged over the groups. About 0.1 for 10 % in every group."""
    widths, others = one.widths, other.widths
    return statistics.fmean(abs(math.log(widths[name] / others[name])) for name in widths)


def told_apart(one: float, other: float, images: float) -> bool:
    """Whether two scores on so many images differ by more than two standard errors of their difference.

    The errors count as independent, which makes too much of them: both scores are of the same images.
    """
    variance = (one * (1 - one) + other * (1 - other)) / images
    return abs(one - other) > 2 * math.sqrt(variance)

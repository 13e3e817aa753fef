"""Which trials are kept: bounds first, accuracy second; of near-identical plans one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.design import Design, PruningPlan
from edgeprune.core.measurement import Failure, Measurement
from edgeprune.core.trial import Trial
from edgeprune.pipeline.records.search import Reference
from edgeprune.profilers.statistics import Interval, cost_interval

#: By how much the quotient of a living process, which cannot tell how fresh ones differ, may lie under theirs: added to
#: it as a share before it is held against a bound. Single processes scatter by 1.2 to 1.5 % around what seven say
#: together (docs/decisions/0003-measuring.md). It is less than that, since who keeps the bound so is raced again in
#: fresh processes before it is chosen: more would only keep plans away from the bound that was asked for.
BETWEEN_PROCESSES = 0.01
#: Plans nearer than this (see `distance`) are near-identical: a tenth more channels in every group.
APART = 0.1
#: So many trials at most are given the time that their interval needs.
PATIENT = 2


def confirmed(trial: Trial) -> bool:
    """Whether its cost was measured as the end will measure it, in fresh processes."""
    return isinstance(trial.candidate.cost, Measurement) and trial.candidate.cost.settings.processes > 0


def latency_interval(cost: Measurement, bound: Bound, baseline: float) -> Interval:
    """Where the latency lies that `bound` is about, as a share of the unpruned network's or in the cost's unit.

    Of fresh processes it is the interval that the end will judge by. Of a living process it is at least
    `BETWEEN_PROCESSES` wide to either side, but for instructions and simulated seconds, which do not depend on the
    process; an absolute bound is then held against the quotient times `baseline`.
    """
    fresh = cost.settings.processes > 0
    found = _interval(cost.samples, cost.against, cost.process, relative=bound.relative or not fresh)
    if not fresh and cost.unit == "s":
        wider = 1 + BETWEEN_PROCESSES
        found = replace(found, low=min(found.low, found.value / wider), high=max(found.high, found.value * wider))
    if fresh or bound.relative:
        return found
    return Interval(found.value * baseline, found.low * baseline, found.high * baseline)


@lru_cache(maxsize=4096)
def _interval(
    samples: tuple[float, ...], against: tuple[float, ...], process: tuple[int, ...], *, relative: bool
) -> Interval:
    # A resampled interval takes milliseconds, and trials are ranked again and again.
    return cost_interval(samples, against, process, relative=relative)


def excess(trial: Trial, budget: Budget, baseline: Reference) -> float:
    """By how much a trial misses its bounds: 0 when it meets all, else the largest relative excess.

    Of a latency the upper end of its interval counts: a trial meets the bound where it is known to. A trial without a
    measurement cannot be shown to meet a bound on latency or memory: infinite. `max_drop` is not judged here: the
    trials are not fine-tuned yet.
    """
    return _excess(trial, budget, baseline, lambda latency: latency.high)


def _may_meet(trial: Trial, budget: Budget, baseline: Reference) -> bool:
    """Whether it may yet turn out to meet all bounds, when its latency is measured again."""
    return _excess(trial, budget, baseline, lambda latency: latency.low) == 0.0


def _excess(trial: Trial, budget: Budget, baseline: Reference, end: Callable[[Interval], float]) -> float:
    worst = 0.0
    cost = trial.candidate.cost
    if (latency := budget.max_latency) is not None:
        if not isinstance(cost, Measurement):
            return float("inf")
        worst = max(worst, end(latency_interval(cost, latency, baseline.latency)) / latency.value - 1.0)
    for bound, value, reference in (
        (budget.max_memory, cost.peak_bytes if isinstance(cost, Measurement) else float("inf"), baseline.memory),
        (budget.max_bytes, trial.candidate.bytes or float("inf"), baseline.bytes),
    ):
        if bound is not None:
            worst = max(worst, value / bound.limit(reference) - 1.0)
    if budget.min_ncr is not None:
        worst = max(worst, budget.min_ncr / trial.candidate.ncr - 1.0)
    return worst


def rank(trials: Sequence[Trial], budget: Budget, baseline: Reference, chance: float = 0.0) -> list[Trial]:
    """Distinct designs, best first: those that meet every bound by accuracy, then the others by how nearly they do.

    Of equally accurate ones the first is the one nearest to the bounds that are measured, since nothing is gained by
    going further than asked; without such bounds the one with most neurons gone.

    Behind all of these come, in the same order, those whose accuracy is not above `chance`: how it ranks them is luck.
    """
    distinct = {trial.candidate.design.key: trial for trial in reversed(trials)}
    missed = {key: excess(trial, budget, baseline) for key, trial in distinct.items()}

    def spare(trial: Trial) -> float:
        cost = trial.candidate.cost
        if not isinstance(cost, Measurement):
            return 0.0
        used = [
            value / bound.limit(whole)
            for bound, value, whole in (
                (budget.max_latency, cost.quotient * baseline.latency, baseline.latency),
                (budget.max_memory, cost.peak_bytes, baseline.memory),
                (budget.max_bytes, trial.candidate.bytes, baseline.bytes),
            )
            if bound is not None
        ]
        return -max(used, default=0.0)

    return sorted(
        distinct.values(),
        key=lambda trial: (
            trial.candidate.accuracy <= chance,
            missed[trial.candidate.design.key],
            -trial.candidate.accuracy,
            spare(trial),
            -trial.candidate.ncr,
            trial.index,
        ),
    )


def confirm(
    trials: Sequence[Trial],
    wanted: int,
    budget: Budget,
    baseline: Reference,
    chance: float,
    images: float,
    again: Callable[[Trial, bool], Measurement | Failure],
) -> list[Trial]:
    """As `rank`, with who would be a finalist measured once more by `again`, in fresh processes, until none is new.

    `again` gets the trial, and whether to take its time.

    The best of many noisy figures is lucky: a trial that kept its bound only by luck is found out here, and what it is
    judged by from then on is the second figure. Those that keep it come first. Those that may keep it are measured
    again as well, where none is known to, and where they score more than the last finalist: nearer to the bound there
    is more room. After `2 * wanted + 2` trials that is enough. Where too wide an interval is then all that keeps out a
    trial whose score is told from that of the best that is in, it is measured for longer: the device scatters.
    """
    if budget.max_latency is None and budget.max_memory is None:
        return rank(trials, budget, baseline, chance)
    left = {trial.candidate.design.key: trial for trial in reversed(trials)}
    tried: set[str] = set()
    while True:
        ordered = rank(list(left.values()), budget, baseline, chance)
        proven = [trial for trial in ordered if confirmed(trial) and excess(trial, budget, baseline) == 0.0]
        finalists = choose_finalists(ordered, wanted, budget, baseline, chance, images)[0]
        hopes = [trial for trial in ordered if _may_meet(trial, budget, baseline)]
        if proven:
            last = finalists[-1].candidate.accuracy
            hopes = [t for t in hopes if t.candidate.accuracy > last and excess(t, budget, baseline) > 0.0]
        doubtful = [trial for trial in (*finalists, *hopes) if trial.candidate.design.key not in tried]
        if not doubtful or len(tried) == 2 * wanted + 2:
            break
        trial = doubtful[0]
        tried.add(trial.candidate.design.key)
        left[trial.candidate.design.key] = _costing(trial, again(trial, False))
    best = max((trial.candidate.accuracy for trial in proven), default=chance)
    kept_out = [
        trial
        for trial in ordered
        if confirmed(trial)
        and excess(trial, budget, baseline) > 0.0
        and _excess(trial, budget, baseline, lambda latency: latency.value) == 0.0
        and trial.candidate.accuracy > best
        and told_apart(trial.candidate.accuracy, best, images)
    ]
    for trial in sorted(kept_out, key=lambda trial: -trial.candidate.accuracy)[:PATIENT]:
        longer = left[trial.candidate.design.key] = _costing(trial, again(trial, True))
        if excess(longer, budget, baseline) == 0.0:
            proven.append(longer)
            break
    ordered = rank(list(left.values()), budget, baseline, chance)
    keys = {trial.candidate.design.key for trial in proven if trial.candidate.accuracy > chance}
    return sorted(ordered, key=lambda trial: trial.candidate.design.key not in keys)


def _costing(trial: Trial, cost: Measurement | Failure) -> Trial:
    return replace(trial, candidate=replace(trial.candidate, cost=cost))


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
    able = [t for t in trials if t.candidate.accuracy > chance and excess(t, budget, baseline) == 0.0]
    if able:
        return _spread(able, wanted, images), None
    nearest = list(trials[:1])
    guessing = [t for t in trials if t.candidate.accuracy <= chance and excess(t, budget, baseline) == 0.0]
    if not guessing or guessing[0] is nearest[0]:
        return nearest, None
    return [*nearest, guessing[0]], guessing[0]


def _spread(able: Sequence[Trial], wanted: int, images: float) -> list[Trial]:
    chosen = [able[0]]
    for trial in able[1:]:
        if len(chosen) == wanted or told_apart(able[0].candidate.accuracy, trial.candidate.accuracy, images):
            break
        if all(_apart(trial.candidate.design, other.candidate.design) for other in chosen):
            chosen.append(trial)
    return chosen


def _apart(one: Design, other: Design) -> bool:
    return one.precision != other.precision or distance(one.plan, other.plan) >= APART


def distance(one: PruningPlan, other: PruningPlan) -> float:
    """How far two plans' widths lie apart: |ln(a / b)|, averaged over the groups. About 0.1 for 10 % in every group.

    A group that is gone counts as one channel.
    """
    widths, others = one.widths, other.widths
    return statistics.fmean(abs(math.log(max(1, widths[name]) / max(1, others[name]))) for name in widths)


def told_apart(one: float, other: float, images: float) -> bool:
    """Whether two scores on so many images differ by more than two standard errors of their difference.

    The errors count as independent, which makes too much of them: both scores are of the same images.
    """
    variance = (one * (1 - one) + other * (1 - other)) / images
    return abs(one - other) > 2 * math.sqrt(variance)

"""What a budget asks beside what is possible on the device: defaults, refusals, limits, and the reward of a search."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.errors import BudgetError
from edgeprune.core.units import format_bytes, format_cost
from edgeprune.pipeline.choose import BETWEEN_PROCESSES
from edgeprune.pipeline.records.search import Possible, Reference
from edgeprune.pipeline.settings import SearchSettings
from edgeprune.pipeline.staying import Measure, because_of
from edgeprune.pruning.structure import Structure
from edgeprune.search.reward import BoundedReward, Limits, Reward
from edgeprune.tasks.metrics import Metric

#: The rate that is asked for when nothing else is (or half-way to the most that is possible).
DEFAULT_NCR = 3.0


def with_defaults(budget: Budget, possible: Possible, metric: Metric) -> Budget:
    """The budget with its defaults: quality is always bounded; where nothing asks for less, a rate (NCR) does."""
    asks = (budget.max_latency, budget.max_memory, budget.max_bytes, budget.min_ncr)
    ncr = default_ncr(possible) if all(bound is None for bound in asks) else budget.min_ncr
    return replace(budget, min_ncr=ncr, max_drop=metric.usual_drop if budget.max_drop is None else budget.max_drop)


def default_ncr(possible: Possible) -> float:
    """3, or half-way to the most that is possible where that is less."""
    return min(DEFAULT_NCR, round(1 + (possible.ncr - 1) / 2, 2))


def kept_already(budget: Budget, possible: Possible) -> list[str]:
    """A line for every bound that the unpruned network keeps: it asks for nothing."""
    reference = possible.reference
    return [
        f"the unpruned network keeps --max-{name} as it is ({shown}): that bound asks for nothing"
        for name, bound, whole, shown in (
            ("latency", budget.max_latency, reference.latency, format_cost(reference.latency, possible.unit)),
            ("memory", budget.max_memory, reference.memory, format_bytes(reference.memory)),
            ("bytes", budget.max_bytes, reference.bytes, format_bytes(reference.bytes)),
        )
        if bound is not None and bound.limit(whole) >= whole
    ]


def check_possible(budget: Budget, possible: Possible, device: str, structure: Structure) -> None:
    """Raises BudgetError, with what is possible at best, where even the narrowest allowed network breaks a bound.

    A bound on seconds that it may keep in other processes is not refused: the end says how that came out. The hint is
    about `structure`'s layers that stay where they are the reason.
    """
    reference = possible.reference
    fastest = possible.latency_share / (1 + BETWEEN_PROCESSES if possible.unit == "s" else 1)

    def hint(measure: Measure, share: float) -> str:
        return because_of(structure, measure, share) or "ask for less, or allow more with --max-sparsity"

    if budget.min_ncr is not None and possible.ncr < budget.min_ncr:
        raise BudgetError(
            f"a neuron compression rate of {budget.min_ncr:g} cannot be reached: {possible.ncr:.2f} is the most here",
            hint("neurons", 1 / possible.ncr),
        )
    for bound, share, whole, name, show in (
        (
            budget.max_latency,
            possible.latency_share,
            reference.latency,
            "latency",
            lambda v: format_cost(v, possible.unit),
        ),
        (budget.max_memory, possible.memory_share, reference.memory, "memory", format_bytes),
        (budget.max_bytes, possible.smallest_bytes / reference.bytes, reference.bytes, "file size", format_bytes),
    ):
        least = fastest if bound is budget.max_latency else share
        which = "fastest of the narrow networks" if bound is budget.max_latency else "smallest allowed network"
        if bound is not None and least * whole > bound.limit(whole):
            raise BudgetError(
                f"{name} of {show(bound.limit(whole))} cannot be reached on {device}: the {which} has "
                f"{show(share * whole)}, the unpruned one {show(whole)}",
                hint("macs" if bound is budget.max_latency else "parameters", share),
            )


def limits_of(asked: Budget, reference: Reference) -> Limits:
    """What the user bounded, as shares of the unpruned network's."""

    def share(bound: Bound | None, whole: float) -> float | None:
        return None if bound is None else bound.limit(whole) / whole

    return Limits(
        latency=share(asked.max_latency, reference.latency),
        memory=share(asked.max_memory, reference.memory),
        bytes=share(asked.max_bytes, reference.bytes),
        ncr=asked.min_ncr,
    )


def make_reward(
    settings: SearchSettings, budget: Budget, limits: Limits, possible: Possible, accuracy: float, *, paper: bool
) -> Reward | BoundedReward:
    """[ACNN] (3) with measured terms where nothing is bounded, or for the `paper`'s own agent; else quality in bounds.

    Expectations are what the user asks for; otherwise half-way between the unpruned and the narrowest network.
    """

    def aim(bound: Bound | None, share: float, reference: float) -> float:
        if bound is not None:
            return bound.limit(reference) / reference
        return 0.5 * (1.0 + min(share, 1.0))

    reference = possible.reference
    weighed = Reward(
        accuracy=accuracy,
        ncr=budget.min_ncr or default_ncr(possible),
        latency=aim(budget.max_latency, possible.latency_share, reference.latency),
        memory=aim(budget.max_memory, possible.memory_share, reference.memory),
        beta=settings.beta,
        gamma=settings.gamma,
        delta=settings.delta,
    )
    if paper or not limits:
        return weighed
    by_hand = weighed.beta or weighed.gamma or weighed.delta
    return BoundedReward(accuracy, limits, int(reference.bytes), weighed if by_hand else None)

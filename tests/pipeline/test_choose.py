import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from handmade import NO_GRAPH

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import BudgetError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.trial import Candidate, Trial
from edgeprune.pipeline.choose import (
    Reference,
    choose_finalists,
    confirm,
    confirmed,
    excess,
    latency_interval,
    rank,
)
from edgeprune.pipeline.possible import check_possible, kept_already, with_defaults
from edgeprune.pipeline.records.search import Possible
from edgeprune.pruning.structure import LayerCost, Structure
from edgeprune.tasks.metrics import Accuracy

REFERENCE = Reference(latency=0.010, memory=1000, bytes=5000)


def trial(
    index: int,
    accuracy: float,
    latency: float = 0.5,
    ncr: float = 4.0,
    size: int = 1000,
    failed: bool = False,
    widths: tuple[int, ...] | None = None,
) -> Trial:
    cost: Measurement | Failure = Measurement(
        "s", (latency,) * 2, (), (1.0,) * 2, 400, 1000, "mallinfo2", "", "", "d", {}, MeasureSettings("litert")
    )
    if failed:
        cost = Failure("crashed", "died", retryable=True)
    kept = {str(group): tuple(range(width)) for group, width in enumerate(widths or (index + 1,))}
    return Trial(index, Candidate(PruningPlan(kept), accuracy, ncr, cost, size), 1.0, 0.0)


def fresh(*latencies: float, unpruned: float = 1.0) -> Measurement:
    """A cost by so many fresh processes, as shares of the unpruned network's."""
    samples = tuple(latency * unpruned for latency in latencies for _ in range(2))
    settings = MeasureSettings("litert", processes=len(latencies))
    process = tuple(index for index, _ in enumerate(latencies) for _ in range(2))
    return Measurement(
        "s", samples, (), (unpruned,) * len(samples), 400, 1000, "mallinfo2", "", "", "d", {}, settings, process
    )


def costing(found: Trial, cost: Measurement) -> Trial:
    return replace(found, candidate=replace(found.candidate, cost=cost))


def order(trials: list[Trial], budget: Budget) -> list[int]:
    return [t.index for t in rank(trials, budget, REFERENCE)]


def test_bounds_come_first_and_accuracy_second() -> None:
    trials = [trial(0, 0.99, latency=0.9), trial(1, 0.95, latency=0.5), trial(2, 0.97, latency=0.4)]
    assert order(trials, Budget(max_latency=Bound(0.6, relative=True))) == [2, 1, 0]
    assert order(trials, Budget(max_latency=Bound(0.0045))) == [2, 1, 0]
    assert order(trials, Budget()) == [0, 2, 1]


def test_of_equally_accurate_ones_the_first_goes_no_further_than_asked() -> None:
    trials = [trial(0, 0.97, latency=0.3, ncr=5.0), trial(1, 0.97, latency=0.5), trial(2, 0.97, latency=0.4)]
    assert order(trials, Budget(max_latency=Bound(0.6, relative=True))) == [1, 2, 0]
    assert order(trials, Budget(min_ncr=3.0)) == [0, 1, 2]


def test_when_none_meets_them_the_nearest_is_first() -> None:
    trials = [trial(0, 0.99, ncr=2.0), trial(1, 0.5, ncr=2.9)]
    assert order(trials, Budget(min_ncr=3.0)) == [1, 0]


def test_excess_is_the_worst_of_all_bounds() -> None:
    budget = Budget(Bound(0.5, True), Bound(200), Bound(1000), min_ncr=2.0)
    assert excess(trial(0, 0.9), budget, REFERENCE) == pytest.approx(1.0)  # 400 bytes of 200


def test_what_was_not_measured_cannot_meet_a_bound() -> None:
    lost = trial(0, 0.99, failed=True)
    assert excess(lost, Budget(max_latency=Bound(9.0)), REFERENCE) == math.inf
    assert excess(lost, Budget(min_ncr=3.0), REFERENCE) == 0.0


def measured(latency: float, unit: Unit) -> Trial:
    found = trial(0, 0.9, latency=latency)
    assert isinstance(found.candidate.cost, Measurement)
    return costing(found, replace(found.candidate.cost, unit=unit))


def test_a_figure_that_the_processes_scatter_past_the_bound_does_not_meet_it() -> None:
    asked = Budget(max_latency=Bound(0.7, relative=True))
    assert excess(measured(0.699, "s"), asked, REFERENCE) > 0
    assert excess(measured(0.68, "s"), asked, REFERENCE) == 0
    # These do not scatter.
    assert excess(measured(0.699, "instructions"), asked, REFERENCE) == 0
    assert excess(measured(0.699, "simulated s"), asked, REFERENCE) == 0
    assert order([replace(measured(0.699, "s"), index=7), trial(1, 0.8, latency=0.6)], asked) == [1, 7]


def test_a_figure_of_fresh_processes_is_judged_by_its_own_interval() -> None:
    asked = Bound(0.7, relative=True)
    narrow, wide = (costing(trial(0, 0.9), fresh(0.69 - w, 0.69, 0.69 + w)) for w in (0.002, 0.02))
    assert excess(narrow, Budget(max_latency=asked), REFERENCE) == 0
    assert excess(wide, Budget(max_latency=asked), REFERENCE) > 0
    # An absolute bound is about the candidate's own latency, whatever the unpruned network takes.
    own = latency_interval(fresh(0.5, 0.5, 0.5, unpruned=0.02), Bound(0.005), REFERENCE.latency)
    assert (own.low, own.value, own.high) == pytest.approx((0.01, 0.01, 0.01))


def confirming(
    trials: list[Trial],
    wanted: int,
    found: Mapping[int, Measurement | Failure],
    asked: Budget | None = None,
    *,
    longer: Mapping[int, Measurement | Failure] | None = None,
    images: float = 100,
) -> tuple[list[int], list[int]]:
    """Order of choice, and which were measured again; `found` is what that gives (else what it was), `longer` what it
    gives with more time (None: nobody is given it).
    """
    longer = longer or {}
    again: list[int] = []

    def measure(trial: Trial, patiently: bool) -> Measurement | Failure:
        assert isinstance(trial.candidate.cost, Measurement)
        again.append(trial.index)
        if patiently:
            return longer[trial.index]
        return found.get(trial.index, fresh(*(trial.candidate.cost.quotient,) * 3))

    budget = asked or Budget(max_latency=Bound(0.7, relative=True))
    return [t.index for t in confirm(trials, wanted, budget, REFERENCE, 0.0, images, measure)], again


def test_the_best_are_measured_again_until_enough_keep_their_bound() -> None:
    trials = [trial(n, 0.9 - n / 100, latency=0.6) for n in range(5)]
    assert confirming(trials, 2, {}) == ([0, 1, 2, 3, 4], [0, 1])
    # Lucky the first time, gone, and open: each makes way for the next.
    found = {0: fresh(0.72, 0.72, 0.72), 1: Failure("crashed", "died", True), 2: fresh(0.7, 0.7, 0.701)}
    assert confirming(trials, 1, found) == ([3, 4, 2, 0, 1], [0, 1, 2, 3])


def test_what_was_shown_to_keep_its_bound_goes_before_what_was_not() -> None:
    trials = [trial(n, 0.9 - n / 100, latency=0.6) for n in range(9)]
    found: dict[int, Measurement | Failure] = {n: fresh(0.8, 0.8, 0.8) for n in (0, 1, 3)}
    ordered, again = confirming(trials, 1, found)
    assert (ordered[0], again) == (2, [0, 1, 2])
    # Nearly the same as the first one, so it is no finalist, and is not measured again.
    alike = [trial(0, 0.9, widths=(64,)), trial(1, 0.89, widths=(62,)), trial(2, 0.88, widths=(32,))]
    assert confirming(alike, 2, {}) == ([0, 2, 1], [0, 2])
    # Enough is enough.
    _, again = confirming(trials, 2, {n: fresh(0.8, 0.8, 0.8) for n in range(9)})
    assert again == [0, 1, 2, 3, 4, 5]


def test_where_none_is_known_to_keep_it_those_that_may_are_measured_again() -> None:
    trials = [trial(0, 0.9, latency=0.699), trial(1, 0.8, latency=0.705), trial(2, 0.95, latency=0.9)]
    assert confirming(trials, 3, {}) == ([0, 1, 2], [0])
    found: dict[int, Measurement | Failure] = {0: fresh(0.71, 0.71, 0.71), 1: fresh(0.69, 0.69, 0.69)}
    assert confirming(trials, 3, found) == ([1, 0, 2], [0, 1])


def test_what_scores_more_but_may_not_keep_the_bound_is_given_the_chance() -> None:
    # Known to keep it but worse; nearer to the bound and better; better still, and over it.
    trials = [trial(0, 0.88, latency=0.6), trial(1, 0.9, latency=0.699), trial(2, 0.95, latency=0.8)]
    kept = {1: fresh(0.69, 0.69, 0.69)}
    assert confirming(trials, 2, kept) == ([1, 0, 2], [0, 1])
    assert confirming(trials, 2, {1: fresh(0.7, 0.7, 0.71)}) == ([0, 1, 2], [0, 1])
    # Not where it scores less.
    assert confirming([trials[0], trial(1, 0.87, latency=0.699)], 2, kept) == ([0, 1], [0])


def test_a_clearly_better_trial_whose_interval_is_too_wide_gets_more_time() -> None:
    # Known to keep the bound; better and across it; better still, but over it by its own figure.
    trials = [trial(0, 0.7, latency=0.6), trial(1, 0.8, latency=0.69), trial(2, 0.85, latency=0.69)]
    across, over = fresh(0.67, 0.69, 0.71), fresh(0.69, 0.705, 0.72)
    longer = {1: fresh(0.69, 0.69, 0.69)}
    assert confirming(trials, 1, {1: across, 2: over}, longer=longer, images=4000) == ([1, 0, 2], [2, 1, 0, 1])
    # It scatters still, or does not run any more: what is known to keep the bound stays first.
    assert confirming(trials, 1, {1: across, 2: over}, longer={1: across}, images=4000)[0][0] == 0
    failed = {1: Failure("crashed", "died", True)}
    assert confirming(trials, 1, {1: across, 2: over}, longer=failed, images=4000)[0][0] == 0
    # On so few images its score is not told from the other's.
    assert confirming(trials, 1, {1: across, 2: over}, images=50)[1].count(1) == 1
    # Two at most, the better first, until one keeps it.
    many = [trials[0], *(trial(n, 0.8 + n / 100, latency=0.69) for n in (1, 2, 3))]
    wide = dict.fromkeys((1, 2, 3), across)
    ordered, again = confirming(many, 1, wide, longer={3: across, 2: longer[1]}, images=4000)
    assert (ordered[0], again[-2:]) == (2, [3, 2])


def test_nothing_is_measured_again_for_bounds_that_no_device_has_a_say_in() -> None:
    assert confirming([trial(0, 0.9), trial(1, 0.95)], 3, {}, Budget(min_ncr=3.0, max_bytes=Bound(2000))) == (
        [1, 0],
        [],
    )


def test_a_trial_tells_whether_it_was_confirmed() -> None:
    assert not confirmed(trial(0, 0.9))
    assert not confirmed(trial(0, 0.9, failed=True))
    assert confirmed(costing(trial(0, 0.9), fresh(0.5, 0.5)))


POSSIBLE = Possible(ncr=2.0, latency_share=0.4, memory_share=0.3, reference=REFERENCE, smallest_bytes=900)

#: Nothing stays.
FREE = Structure((1,), NO_GRAPH, (), {}, (), (), 1, None, {"fc": LayerCost(100, 100, 10)})


def test_impossible_budgets_say_what_is_possible() -> None:
    for budget, says in (
        (
            Budget(max_latency=Bound(0.3, True)),
            r"latency of 3 ms cannot be reached on d.* 4 ms, the unpruned one 10 ms",
        ),
        (Budget(max_memory=Bound(100)), "memory of 100 B cannot be reached"),
        (Budget(max_bytes=Bound(800)), "file size of 800 B cannot"),
        (Budget(min_ncr=2.5), "2.00 is the most here"),
    ):
        with pytest.raises(BudgetError, match=says) as caught:
            check_possible(budget, POSSIBLE, "d", FREE)
        assert caught.value.exit_code == 3
    check_possible(Budget(Bound(0.5, True), Bound(300), Bound(900), 1.0, 2.0), POSSIBLE, "d", FREE)


def test_seconds_that_other_processes_may_keep_are_not_refused() -> None:
    near = Budget(max_latency=Bound(0.397, True))
    check_possible(near, POSSIBLE, "d", FREE)
    with pytest.raises(BudgetError, match="cannot be reached"):
        check_possible(Budget(max_latency=Bound(0.395, True)), POSSIBLE, "d", FREE)
    # Instructions are the same in every process.
    with pytest.raises(BudgetError, match="cannot be reached"):
        check_possible(near, replace(POSSIBLE, unit="instructions"), "d", FREE)


def test_a_rate_by_default_only_where_nothing_asks_for_less() -> None:
    assert with_defaults(Budget(), POSSIBLE, Accuracy()) == Budget(min_ncr=1.5, max_drop=1.0)
    assert with_defaults(Budget(max_drop=0.2), POSSIBLE, Accuracy()) == Budget(min_ncr=1.5, max_drop=0.2)
    assert with_defaults(Budget(max_bytes=Bound(900)), POSSIBLE, Accuracy()).min_ncr is None


@pytest.mark.parametrize(
    "asked",
    [
        Budget(max_latency=Bound(0.7, True)),
        Budget(max_memory=Bound(900)),
        Budget(max_bytes=Bound(900)),
        Budget(min_ncr=2.0),
        Budget(),
    ],
)
def test_quality_is_bounded_whatever_else_is_asked(asked: Budget) -> None:
    assert with_defaults(asked, POSSIBLE, Accuracy()).max_drop == 1.0
    assert with_defaults(replace(asked, max_drop=5.0), POSSIBLE, Accuracy()).max_drop == 5.0


def test_bounds_that_ask_for_nothing_are_named() -> None:
    asked = Budget(max_latency=Bound(0.02), max_memory=Bound(1.0, True), max_bytes=Bound(4999))
    first, second = kept_already(asked, POSSIBLE)
    assert "--max-latency as it is (10 ms)" in first
    assert "--max-memory as it is (1 kB)" in second


def test_what_guesses_ranks_last_whatever_it_meets() -> None:
    trials = [trial(0, 0.11, latency=0.4), trial(1, 0.95, latency=0.9), trial(2, 0.90, latency=0.5)]
    fast = Budget(max_latency=Bound(0.6, relative=True))
    assert [t.index for t in rank(trials, fast, REFERENCE, chance=0.15)] == [2, 1, 0]
    assert [t.index for t in rank(trials[:2], fast, REFERENCE, chance=0.15)] == [1, 0]
    assert [t.index for t in rank(trials[:2], fast, REFERENCE, chance=0.11)] == [1, 0]
    assert [t.index for t in rank(trials[:2], fast, REFERENCE)] == [0, 1]


def test_a_trial_at_chance_is_tuned_only_where_no_other_meets_the_bounds() -> None:
    fast = Budget(max_latency=Bound(0.6, relative=True))

    def finalists(*trials: Trial) -> tuple[list[int], int | None]:
        ordered = rank(trials, fast, REFERENCE, chance=0.15)
        chosen, rescue = choose_finalists(ordered, 3, fast, REFERENCE, 0.15, 1000)
        return [t.index for t in chosen], None if rescue is None else rescue.index

    able, slow, lost = trial(0, 0.9), trial(1, 0.95, latency=0.9), trial(2, 0.1)
    assert finalists(able, slow, lost) == ([0], None)
    assert finalists(slow, lost) == ([1, 2], 2)
    assert finalists(slow, trial(3, 0.1, latency=0.9)) == ([1], None)
    assert finalists(lost, trial(3, 0.12)) == ([3], None)


def finalists_of(trials: list[Trial], wanted: int = 3, images: float = 100) -> list[int]:
    ordered = rank(trials, Budget(), REFERENCE)
    return [t.index for t in choose_finalists(ordered, wanted, Budget(), REFERENCE, 0.15, images)[0]]


def test_of_near_identical_plans_one_is_a_finalist() -> None:
    near = [trial(0, 0.90, widths=(64, 64)), trial(1, 0.89, widths=(64, 56)), trial(2, 0.88, widths=(56, 64))]
    assert finalists_of(near) == [0]
    # Far from the best, and from each other.
    far = [trial(3, 0.87, widths=(64, 48)), trial(4, 0.86, widths=(64, 47)), trial(5, 0.85, widths=(40, 64))]
    assert finalists_of([*near, *far]) == [0, 3, 5]
    assert finalists_of([*near, *far], wanted=2) == [0, 3]


def test_what_scores_worse_than_noise_explains_is_no_finalist() -> None:
    trials = [trial(0, 0.95, widths=(64,)), trial(1, 0.90, widths=(32,)), trial(2, 0.80, widths=(16,))]
    assert finalists_of(trials, images=100) == [0, 1]
    assert finalists_of(trials, images=1000) == [0]
    assert finalists_of(trials, images=10) == [0, 1, 2]
    # Right on every image is no score without an error.
    assert finalists_of([trial(0, 1.0, widths=(64,)), trial(1, 0.99, widths=(32,))]) == [0, 1]


def test_finalists_are_taken_from_all_trials_that_meet_the_bounds() -> None:
    near = [trial(index, 0.95 - 0.001 * index, widths=(64 - index,)) for index in range(5)]
    assert finalists_of([*near, trial(9, 0.93, widths=(20,))], wanted=2) == [0, 9]


def test_one_plan_at_two_precisions_is_two_finalists() -> None:
    """Their networks are the same, and what their files answer is not."""
    whole = trial(0, 0.97, widths=(10, 10))
    lower = trial(1, 0.968, widths=(10, 10))
    lower = replace(lower, candidate=replace(lower.candidate, precision="int8"))
    alike = trial(2, 0.966, widths=(10, 10))
    chosen, _ = choose_finalists([whole, lower, alike], 3, Budget(), REFERENCE, 0.15, 1000)
    assert [each.candidate.design.key for each in chosen] == [whole.candidate.plan.key, lower.candidate.design.key]
    ordered = rank([whole, lower, alike], Budget(), REFERENCE)
    assert [each.candidate.precision for each in ordered] == ["fp32", "int8"]

"""Plans worked out from what widths lose and cost: exchanges of one group against several, and costs drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from edgeprune.core.design import Group
from edgeprune.search.costs import CostModel
from edgeprune.search.least_loss import LeastLoss, learnt_times
from edgeprune.search.states import Losses, SensitiveStates

NAMES = ("stream", "a", "b", "c", "d", "e")
GROUPS = tuple(Group(name, 24, 8, 8, 1.0, 1.0, 10, (name,), "channels") for name in NAMES)
#: What is lost at 8, 16 and 24 channels.
LOST = {"stream": (1.6, 0.8, 0.0), **dict.fromkeys(NAMES[1:], (0.25, 0.05, 0.0))}


def states(additive: bool = True) -> SensitiveStates:
    curves = {name: [lost[max(0, (width + 7) // 8 - 1)] for width in range(25)] for name, lost in LOST.items()}
    return SensitiveStates(GROUPS, Losses(curves, additive=additive))


def cost(widths: Mapping[str, int]) -> float:
    """A step of the stream brings three tenths, one of any other group 0.07."""
    return 1.0 - sum((24 - width) / 8 * (0.3 if name == "stream" else 0.07) for name, width in widths.items())


def lost(widths: Mapping[str, int]) -> float:
    return sum(LOST[name][width // 8 - 1] for name, width in widths.items())


@pytest.mark.parametrize("limit", [0.7, 0.6, 0.5, 0.4, 0.3])
def test_a_step_that_brings_much_is_given_back_for_several_that_bring_little(limit: float) -> None:
    def missing(widths: Mapping[str, int]) -> float:
        return cost(widths) / limit - 1.0

    every = [dict(zip(NAMES, widths, strict=True)) for widths in product((8, 16, 24), repeat=6)]
    best = min(lost(plan) for plan in every if missing(plan) <= 0.0)
    found = LeastLoss(GROUPS, states(), missing).plan()
    assert missing(found) <= 0.0
    assert lost(found) == pytest.approx(best)


def test_what_may_go_goes_as_a_whole_where_half_of_it_brings_nothing() -> None:
    # Half of a block costs what the whole does; none of it a tenth less.
    groups = tuple(replace(group, removable=group.name in "abcde") for group in GROUPS)
    curves = {name: [0.3, *[LOST[name][max(0, (w + 7) // 8 - 1)] for w in range(1, 25)]] for name in NAMES}
    sensitive = SensitiveStates(groups, Losses(curves, additive=True))

    def missing(widths: Mapping[str, int]) -> float:
        return (1.0 - 0.1 * sum(not width for width in widths.values())) / 0.75 - 1.0

    found = LeastLoss(groups, sensitive, missing).plan()
    assert missing(found) <= 0.0
    assert sorted(found.values()) == [0, 0, 0, 24, 24, 24]
    assert found["stream"] == 24


def test_where_losses_do_not_add_up_nothing_is_exchanged() -> None:
    def missing(widths: Mapping[str, int]) -> float:
        return cost(widths) / 0.5 - 1.0

    assert lost(LeastLoss(GROUPS, states(additive=False), missing).plan()) > 0.9


def test_costs_are_drawn_as_likely_as_they_are() -> None:
    model = CostModel(GROUPS, lambda widths: (sum(widths.get(name, 24) for name in NAMES) / 144,))
    plans = [dict(zip(NAMES, widths, strict=True)) for widths in product((8, 24), repeat=6)]
    for plan in plans[:20]:
        model.learn(plan, cost(plan))
    random = np.random.default_rng(0)
    # The first twenty leave the stream as narrow as it may be: what it costs is not known.
    known, unknown = plans[3], plans[-3]
    drawn = [model.drawn(random) for _ in range(200)]
    assert model(known) == pytest.approx(cost(known), abs=0.02)
    for plan in (known, unknown):
        assert np.mean([each(plan) for each in drawn]) == pytest.approx(model(plan), abs=0.02)
    spread = [float(np.std([each(plan) for each in drawn])) for plan in (known, unknown)]
    assert spread[1] > max(3 * spread[0], 0.01)
    # Whoever is drawn from stays as it was.
    assert model(known) == pytest.approx(cost(known), abs=0.02)


def test_what_plans_scored_tells_which_losses_were_misjudged() -> None:
    random, seen = np.random.default_rng(0), states()
    truly = {"stream": 0.3, "a": 3.0, **dict.fromkeys(NAMES[2:], 1.0)}
    plans = [{name: int(random.choice([8, 16, 24])) for name in NAMES} for _ in range(30)]

    def score(plan: Mapping[str, int]) -> float:
        true = sum(truly[name] * LOST[name][width // 8 - 1] for name, width in plan.items())
        return 0.9 - 0.2 * true + float(random.normal(0, 0.005))

    scores = [score(plan) for plan in plans]
    times = dict(zip(NAMES, learnt_times(GROUPS, seen, plans, scores), strict=True))
    # How fast scores fall is not known: only how groups compare.
    assert times["stream"] < 0.7 * times["b"] < 0.5 * times["a"]

    def truly_lost(given: Sequence[float]) -> float:
        plan = LeastLoss(GROUPS, seen, lambda widths: cost(widths) / 0.5 - 1.0, given).plan()
        return sum(truly[name] * LOST[name][width // 8 - 1] for name, width in plan.items())

    assert truly_lost(tuple(times.values())) < truly_lost(()) - 0.05


def test_of_few_plans_or_scores_that_are_all_alike_nothing_is_learnt() -> None:
    plans = [{name: 8 * (1 + (i + j) % 3) for j, name in enumerate(NAMES)} for i in range(3)] * 4
    assert learnt_times(GROUPS, states(), plans[:7], [0.5] * 7) == ()
    assert learnt_times(GROUPS, states(), plans, [0.5] * len(plans)) == ()


def test_groups_side_by_side_on_an_axis_cost_less_only_together() -> None:
    """Kernels that take blocks: no sum of steps of single groups says that, the blocked work does."""

    def blocks(widths: Mapping[str, int]) -> float:
        side = widths.get("a", 24) + widths.get("b", 24)
        return -(-side // 16) / 3

    def work(widths: Mapping[str, int]) -> tuple[float, ...]:
        return (sum(widths.get(name, 24) for name in NAMES) / 144, 1.0)

    def off(figures: Callable[[Mapping[str, int]], Sequence[float]]) -> float:
        """Of plans that were not seen, the mean error."""
        plans = [{"a": a, "b": b} for a, b in product((8, 16, 24), repeat=2)]
        errors = []
        for left in plans[:-1]:
            model = CostModel(GROUPS, figures)
            for plan in plans:
                if plan != left:
                    model.learn(plan, 0.4 + 0.6 * blocks(plan))
            errors.append(abs(model(left) - 0.4 - 0.6 * blocks(left)))
        return float(np.mean(errors))

    # Of 48 channels 40 take as many blocks, and 32 take one less.
    assert off(lambda widths: (*work(widths), blocks(widths))) < 0.5 * off(work)

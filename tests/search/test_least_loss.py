"""Plans worked out from what widths lose and cost: exchanges of one group against several, and costs drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest

from edgeprune.core.design import Group
from edgeprune.search.costs import CostModel
from edgeprune.search.least_loss import LeastLoss
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
    assert np.std([each(unknown) for each in drawn]) > 3 * np.std([each(known) for each in drawn])
    # Whoever is drawn from stays as it was.
    assert model(known) == pytest.approx(cost(known), abs=0.02)

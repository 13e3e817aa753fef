"""Which reward a run searches by: bounds are constraints, and without any the paper's equation stands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from some_facts import FACTS

from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.trial import Candidate
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.possible import limits_of, make_reward, with_defaults
from edgeprune.pipeline.records.search import Possible, Reference
from edgeprune.pipeline.settings import settle
from edgeprune.search.reward import BoundedReward, Limits, Reward
from edgeprune.tasks.metrics import Accuracy

REFERENCE = Reference(latency=2e-3, memory=4e6, bytes=1e6)
POSSIBLE = Possible(ncr=8.0, latency_share=0.2, memory_share=0.4, reference=REFERENCE, smallest_bytes=100_000)


def reward_of(paper: bool = False, **asked: object) -> Reward | BoundedReward:
    config = RunConfig(**asked)  # type: ignore[arg-type]
    budget = with_defaults(config.budget(), POSSIBLE, Accuracy())
    settings = settle(replace(config, method="acnn") if paper else config, FACTS).search
    return make_reward(settings, budget, limits_of(config.budget(), REFERENCE), POSSIBLE, 0.9, paper=paper)


def candidate(latency: float, memory: float, ncr: float) -> Candidate:
    cost = Measurement(
        "s", (latency,), (), (1.0,), int(1000 * memory), 1000, "", "", "", "", {}, MeasureSettings("onnxruntime")
    )
    return Candidate(PruningPlan({}), 0.9, ncr, cost, 1)


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({"max_latency": "0.5x"}, Limits(latency=0.5)),
        ({"max_latency": "1ms", "max_memory": "0.6x"}, Limits(latency=0.5, memory=0.6)),
        ({"max_bytes": "300kB"}, Limits(bytes=0.3)),
        ({"expect_ncr": 3.0}, Limits(ncr=3.0)),
    ],
)
def test_what_is_bounded_is_a_constraint_and_nothing_else_weighs(asked: dict[str, object], limits: Limits) -> None:
    reward = reward_of(**asked)
    assert isinstance(reward, BoundedReward)
    assert (reward.limits, reward.extras) == (limits, None)


def test_a_bound_on_quality_alone_bounds_no_cost() -> None:
    # There would be nothing to search for.
    assert isinstance(reward_of(max_drop=0.5), Reward)


def test_without_bounds_and_for_the_papers_agent_equation_3_stands() -> None:
    for reward in (reward_of(), reward_of(paper=True, max_latency="0.5x")):
        assert isinstance(reward, Reward)
        assert (reward.beta, reward.gamma, reward.delta) == (1.0, 1.0, 1.0)
    # What is asked for is its expectation.
    assert reward_of(paper=True, max_latency="0.5x").latency == 0.5  # type: ignore[union-attr]


def test_a_weight_set_by_hand_counts_beside_the_bounds() -> None:
    reward = reward_of(max_latency="0.5x", delta=0.5)
    # The memory expected is half-way to what is possible: 0.7.
    more = reward(candidate(0.5, 0.7, 2.0)) - reward(candidate(0.5, 1.0, 2.0))
    assert more == pytest.approx(0.5 * (1.0 - 0.7))
    assert reward(candidate(0.5, 0.7, 2.0)) == reward(candidate(0.5, 0.7, 8.0))


def test_a_hundredth_over_the_bound_costs_two_hundredths_of_the_quality() -> None:
    reward = reward_of(max_latency="0.5x")
    assert reward(candidate(0.5, 1.0, 2.0)) == pytest.approx(1.0)
    assert reward(candidate(0.505, 1.0, 2.0)) == pytest.approx(0.98)


def test_by_the_papers_equation_more_than_the_unpruned_networks_quality_earns_no_more() -> None:
    reward = reward_of(paper=True)
    found = candidate(0.5, 0.5, 9.0)
    better = replace(found, accuracy=0.99)
    assert found.accuracy == 0.9
    assert reward(better) == reward(found)
    assert reward(replace(found, accuracy=0.45)) == pytest.approx(reward(found) - 0.5)

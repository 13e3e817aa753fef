"""Every search at an equal number of evaluations, on a formula whose best plan is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.trial import Candidate
from edgeprune.search.agent import equal_loss
from edgeprune.search.algorithm import around
from edgeprune.search.amc import bounded
from edgeprune.search.drive import SearchResult, drive
from edgeprune.search.environment import Environment, Episode, StopSearch, uniform_sparsity
from edgeprune.search.methods import METHODS, make_method
from edgeprune.search.names import MethodName
from edgeprune.search.reward import Reward
from edgeprune.search.space import Space, Widths
from edgeprune.search.states import AmcStates, Losses, SensitiveStates

GROUPS = tuple(
    Group(name, channels, channels // 10, 1, 1.0, 1.0, parameters, (name,))
    for name, channels, parameters in (("a", 200, 9000), ("b", 100, 2000), ("c", 50, 500))
)
NEURONS, NCR = 350, 2.0
#: What is lost with each width, as a criterion would say it; group a matters least. Not quite what the formula says.
LOST = {
    g.name: tuple(w**0.5 * (1 - k / g.channels) for k in range(g.channels + 1))
    for g, w in zip(GROUPS, (0.2, 1, 1), strict=True)
}


def formula(widths: Widths) -> Candidate:
    """Accuracy falls with a group's loss; b and c make up for one another a little."""
    a, b, c = (1 - widths.get(g.name, g.channels) / g.channels for g in GROUPS)
    accuracy = 1 - 0.05 * a**3 - 0.2 * b**2 - 0.3 * c**2 - 0.2 * b * c
    plan = PruningPlan({name: tuple(range(width)) for name, width in widths.items()})
    left = sum(widths.get(g.name, g.channels) for g in GROUPS)
    return Candidate(plan, accuracy, NEURONS / left, None, 0)


def environment(name: str, evaluate: Callable[[Widths], Candidate] = formula, ncr: float | None = NCR) -> Environment:
    states = METHODS[name].states(GROUPS, lambda: Losses(LOST))
    return Environment(
        Space(GROUPS, NEURONS), evaluate, Reward(1.0, NCR, 1.0, 1.0), min_ncr=ncr, credit="episode", states=states
    )


def run(name: str, episodes: int = 20, seed: int = 0, **kwargs: object) -> tuple[list[Episode], SearchResult]:
    found: list[Episode] = []
    env = environment(name, **kwargs)  # type: ignore[arg-type]
    searching = METHODS[name].search(env, episodes=episodes, seed=seed)
    result = drive(searching, env, on_episode=lambda _, episode: found.append(episode))
    return found, result


def best(found: list[Episode]) -> float:
    return max(e.reward for e in found if e.candidate.ncr >= NCR)


@pytest.mark.parametrize("name", METHODS)
def test_every_search_keeps_to_its_evaluations_and_to_the_rate(name: str) -> None:
    count = 0

    def evaluate(widths: Widths) -> Candidate:
        nonlocal count
        count += 1
        return formula(widths)

    found, result = run(name, evaluate=evaluate)
    assert result.episodes == len(found) == count <= 20
    assert best(found) > 1.5
    if name != "greedy":
        # Greedy walks towards the rate; everyone else is held to it.
        assert all(e.candidate.ncr >= NCR for e in found)
    assert all(0 <= a <= 0.9 + 1e-9 for e in found for a in e.executed)


@pytest.mark.parametrize("name", METHODS)
def test_a_lost_device_ends_the_search_with_what_it_has(name: str) -> None:
    left = 7

    def evaluate(widths: Widths) -> Candidate:
        nonlocal left
        left -= 1
        if left < 0:
            raise StopSearch("the board is gone")
        return formula(widths)

    found, result = run(name, evaluate=evaluate)
    assert (len(found), result.episodes, result.stopped) == (7, 7, "the board is gone")


@pytest.mark.parametrize("name", METHODS)
def test_one_seed_gives_the_same_plans(name: str) -> None:
    one, two = (run(name, 14, seed=3)[0] for _ in range(2))
    assert [e.executed for e in one] == [e.executed for e in two]


@pytest.mark.parametrize("name", METHODS)
def test_no_rate_asked_for_is_no_error(name: str) -> None:
    found, _ = run(name, 12, ncr=None)
    assert len(found) > 0


def test_ours_beats_chance_one_sparsity_for_all_and_is_no_worse_than_greedy() -> None:
    greedy, alike = best(run("greedy", 60)[0]), best(run("uniform", 60)[0])
    for seed in range(2):
        ours = best(run("edgeprune", 60, seed=seed)[0])
        assert ours > best(run("random", 60, seed=seed)[0])
        assert ours > alike
        assert ours >= greedy - 5e-4


def test_ours_does_not_evaluate_a_plan_twice() -> None:
    found, result = run("edgeprune", 30)
    # The drawn first plans may coincide; what the critic picks is new.
    first, later = ([e.executed for e in part] for part in (found[: result.warm_up], found[result.warm_up :]))
    assert len(set(later)) == len(later) == 30 - result.warm_up
    assert not set(first) & set(later)


def test_the_proximal_step_makes_the_agent_sparse() -> None:
    _, sparse = run("edgeprune", 80)
    _, dense = run("edgeprune-noprox", 12)
    assert sparse.agent_sparsity is not None
    assert dense.agent_sparsity is not None
    assert sparse.agent_sparsity > 0.95
    assert dense.agent_sparsity < 0.01


def test_first_plan_takes_neurons_where_they_cost_least() -> None:
    env = environment("edgeprune")
    sparsities = equal_loss(env)
    assert env.ncr(env.widths(sparsities)) == pytest.approx(NCR, rel=0.02)
    assert sparsities[0] > max(sparsities[1:])


def test_uniform_sparsity_just_reaches_the_rate() -> None:
    env = environment("uniform")
    a = uniform_sparsity(env)
    assert env.ncr(env.widths([a] * 3)) >= NCR
    assert env.ncr(env.widths([a - 0.02] * 3, narrow=False)) < NCR


def test_amc_stays_within_its_budget() -> None:
    found, _ = run("amc", 60)
    env = environment("amc")
    for episode in found:
        # By its own actions: nothing has to narrow them. (Half a neuron of each group is rounding.)
        assert env.ncr(env.widths(episode.proposed, narrow=False)) >= NCR * (1 - 1.5 / (NEURONS / NCR))
    # It may keep what the groups behind, at their floors, can make up for: 175 must go, they have 90 and 45 to give.
    assert bounded(env, 0, 0.0, []) == pytest.approx((175 - 90 - 45) / 200)
    assert bounded(env, 1, 0.0, [0.5]) == pytest.approx((175 - 100 - 45) / 100)
    assert bounded(env, 2, 0.0, [0.5, 0.3]) == pytest.approx(45 / 50)
    # Too little went before: all that can go goes.
    assert [bounded(env, 1, 0.0, [0.0]), bounded(env, 2, 0.0, [0.0, 0.0])] == pytest.approx([0.9, 0.9])
    # Enough went: it may keep all. A generous action is left alone, down to the floor.
    assert bounded(env, 2, 0.0, [0.9, 0.9]) == 0.0
    assert bounded(env, 0, 0.85, []) == pytest.approx(0.85)
    assert bounded(env, 0, 1.0, []) == pytest.approx(0.9)


def test_amcs_state_says_what_was_done() -> None:
    rows = AmcStates(GROUPS).rows((0.5, 0.25, 0.1))
    assert rows.shape == (4, 8)
    # t, type (none of these is inputs or a convolution), n, l_p, MACs; neurons gone, neurons behind, last action.
    np.testing.assert_allclose(rows[1], [2 / 3, 0.5, 0.5, 2000 / 9000, 0.5, 100 / 350, 50 / 350, 0.5], rtol=1e-6)
    np.testing.assert_allclose(rows[2, 5:], [125 / 350, 0.0, 0.25], rtol=1e-6)
    np.testing.assert_allclose(rows[3], 0)


def test_greedy_goes_where_it_hurts_least() -> None:
    found, _ = run("greedy", 30)
    first = found[:3]
    chosen = max(first, key=lambda e: e.reward)
    # The second round starts from the first one's best plan.
    fourth = np.array(found[3].executed) - np.array(chosen.executed)
    assert (fourth > 0).sum() == 1
    assert (fourth >= -1e-9).all()
    assert found[-1].candidate.ncr >= NCR - 0.05


def test_exploration_stays_in_bounds_and_follows_the_mean() -> None:
    noise = np.random.default_rng(0)
    drawn = around(np.full(20_000, 0.3), 0.2, noise)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    # The mean of the normal around 0.3, truncated to [0, 1] at -1.5 and +3.5 deviations.
    assert drawn.mean() == pytest.approx(0.3 + 0.2 * 0.1377, abs=0.005)


def test_settings_reach_the_agent_and_names_are_all_there() -> None:
    assert set(get_args(MethodName)) <= set(METHODS)
    dense = make_method("edgeprune", penalty=0.0)
    found: list[Episode] = []
    env = environment("edgeprune")
    result = drive(dense.search(env, episodes=12, seed=0), env, on_episode=lambda _, e: found.append(e))
    assert result.agent_sparsity == 0.0


def test_the_critic_is_told_what_an_action_loses() -> None:
    states = SensitiveStates(GROUPS, Losses(LOST))
    row = torch.from_numpy(states.row(1, [0.5]))[None]
    action = torch.tensor([[0.3]], requires_grad=True)
    alone, together = SensitiveStates.prices(row, action)[0]
    # Group b, 100 channels: four fifths of the way from the knot at 0.5 to the one at 0.25.
    assert alone.item() == pytest.approx(0.8 * states.lost(1, 75) + 0.2 * states.lost(1, 50), abs=1e-6)
    assert together.item() == pytest.approx(alone.item() + states.lost(0, 100), abs=1e-6)
    together.backward()
    assert action.grad is not None
    assert float(action.grad) == pytest.approx(4 * (states.lost(1, 50) - states.lost(1, 75)), abs=1e-5)
    for end in (0.0, 1.0):
        at = SensitiveStates.prices(row, torch.tensor([[end]]))[0, 0]
        assert float(at) == pytest.approx(states.lost(1, round(100 * (1 - end))), abs=1e-6)

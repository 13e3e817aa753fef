from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.trial import Candidate
from edgeprune.search.algorithm import _settled, acnn, walk
from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, soft_threshold, sparsity, transitions
from edgeprune.search.drive import drive
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.methods import PAPER
from edgeprune.search.reward import Reward
from edgeprune.search.space import Space, Widths

GROUPS = tuple(
    Group(name, channels, channels // 10, 1, 1.0, 1.0, parameters, (name,))
    for name, channels, parameters in (("a", 200, 9000), ("b", 100, 2000), ("c", 50, 500))
)
NEURONS = 350


def measurement(latency: float = 0.5, memory: float = 0.5) -> Measurement:
    return Measurement(
        "s", (latency,) * 3, (), (1.0,) * 3, int(memory * 1000), 1000, "mallinfo2", "", "", "d", {},
        MeasureSettings("litert"),
    )  # fmt: skip


def candidate(widths: Widths, accuracy: float = 1.0, cost: Measurement | Failure | None = None) -> Candidate:
    plan = PruningPlan({name: tuple(range(width)) for name, width in widths.items()})
    left = sum(widths.get(g.name, g.channels) for g in GROUPS)
    return Candidate(plan, accuracy, NEURONS / left, cost or measurement(), 1)


def formula(widths: Widths) -> Candidate:
    """A made-up network: group a is useless, b and c matter more and more the fewer are left."""
    b, c = widths.get("b", 100) / 100, widths.get("c", 50) / 50
    return candidate(widths, accuracy=1.0 - 0.2 * (1 - b) ** 2 - 0.3 * (1 - c) ** 2)


def environment(evaluate=formula, min_ncr: float | None = 2.0, credit: str = "step") -> Environment:  # type: ignore[no-untyped-def]
    return Environment(Space(GROUPS, NEURONS), evaluate, Reward(1.0, 2.0, 1.0, 1.0), min_ncr=min_ncr, credit=credit)  # type: ignore[arg-type]


def test_reward_is_the_papers_with_measured_terms() -> None:
    reward = Reward(accuracy=0.9, ncr=4.0, latency=0.5, memory=0.5, beta=2.0, gamma=3.0, delta=5.0)
    found = candidate({"a": 100, "b": 50, "c": 25}, 0.45, measurement(latency=1.0, memory=0.25))
    # 0.45/0.9, 2 * 2/4, 3 * 0.5/1.0, 5 * capped at 1
    assert reward(found) == pytest.approx(0.5 + 1.0 + 1.5 + 5.0)


def test_a_failed_measurement_earns_nothing_and_invents_nothing() -> None:
    reward = Reward(accuracy=1.0, ncr=1.0, latency=1.0, memory=1.0)
    lost = candidate({}, 1.0, Failure("lost", "gone", retryable=True))
    assert reward(lost) == pytest.approx(2.0)
    assert reward(candidate({}, 1.0)) == pytest.approx(4.0)


def test_states_are_normalised_and_end_in_zeros() -> None:
    states = environment().states.rows(())
    assert states.shape == (4, 4)
    assert states.max() == 1.0
    np.testing.assert_allclose(states[0], [1 / 3, 1.0, 9000 / 11500, 1.0])
    np.testing.assert_allclose(states[3], 0)


@pytest.mark.parametrize("proposal", [(0.0, 0.0, 0.0), (0.0, 0.9, 0.0), (1.0, 1.0, 1.0), (0.3, 0.2, 0.9)])
def test_widths_are_allowed_and_reach_the_rate(proposal: tuple[float, ...]) -> None:
    widths = environment().widths(proposal)
    assert NEURONS / sum(widths.values()) >= 2.0
    assert all(g.floor <= widths[g.name] <= g.channels for g in GROUPS)


def test_narrowing_keeps_proportions_and_wastes_nothing() -> None:
    widths = environment().widths((0.0, 0.0, 0.0))
    assert widths == {"a": 100, "b": 50, "c": 25}


def test_without_a_rate_the_actor_decides_alone() -> None:
    assert environment(min_ncr=None).widths((0.0, 0.5, 1.0)) == {"a": 200, "b": 50, "c": 5}


def test_episodes_store_what_was_executed() -> None:
    asked = [0.0, 2.0, 0.123]
    seen: list[dict[str, int]] = []

    def evaluate(widths: Widths) -> Candidate:
        seen.append(dict(widths))
        return candidate(widths)

    env = environment(evaluate, min_ncr=None)
    episode = env.carry_out(walk(env, lambda step, state: asked[step]).sparsities)
    assert episode.proposed == (0.0, 2.0, 0.123)
    assert episode.executed == pytest.approx((0.0, 0.9, 0.12))
    # The paper's credit: after every group, the later ones still whole.
    assert seen == [{"a": 200}, {"a": 200, "b": 10}, {"a": 200, "b": 10, "c": 44}]
    assert len(episode.rewards) == 3


def test_episode_credit_evaluates_once_and_shares_the_reward() -> None:
    count = 0

    def evaluate(widths: Widths) -> Candidate:
        nonlocal count
        count += 1
        return candidate(widths)

    episode = environment(evaluate, credit="episode").carry_out((0.5, 0.5, 0.5))
    assert count == 1
    assert episode.rewards == (episode.reward,) * 3


def test_soft_threshold_makes_exact_zeros() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.05], [-0.5, 0.1]]))
    soft_threshold(layer, 0.1)
    assert layer.weight.tolist() == [[pytest.approx(0.4), 0.0], [pytest.approx(-0.4), 0.0]]


def run(settings: AgentSettings, seed: int = 0, episodes: int = 120) -> tuple[list[Episode], float]:
    found: list[Episode] = []
    env = environment()
    searching = acnn(env, settings, episodes=episodes, seed=seed)
    result = drive(searching, env, on_episode=lambda _, e: found.append(e))
    assert result.episodes == len(found)
    assert result.agent_sparsity is not None
    return found, result.agent_sparsity


def test_the_agent_learns_and_becomes_sparse() -> None:
    found, share = run(PAPER)
    first, last = found[:30], found[-20:]
    assert np.mean([e.reward for e in last]) > np.mean([e.reward for e in first]) + 0.01
    # It found out that group a is the useless one.
    assert np.mean([e.executed[0] for e in last]) > np.mean([e.executed[1] for e in last])
    # On the way to what a whole search leaves.
    assert share > 0.5


def test_sparse_as_it_is_the_agent_still_tells_groups_apart_after_a_long_search() -> None:
    found, share = run(PAPER, episodes=700)
    # 98 % would be all weights: then one bias proposes the same for every group.
    assert 0.9 < share < 0.98
    proposed = np.mean([e.proposed for e in found[-100:]], axis=0)
    assert proposed[0] > 0.8
    assert proposed[1:].max() < 0.4


@pytest.mark.parametrize(
    ("critic", "settled"),
    [
        ([1.0] * 5, False),
        ([1.0] * 6, True),
        ([1.0, 1.0, 1.0, 0.92, 0.92, 0.92], True),
        ([1.0, 1.0, 1.0, 0.88, 0.88, 0.88], False),
        ([0.1, 5.0, 9.0, 1.0, 1.0, 1.0, 1.1, 0.9, 1.0], True),
        ([1.0] * 6 + [2.0], False),
    ],
)
def test_losses_have_settled_when_they_stay(critic: list[float], settled: bool) -> None:
    assert _settled([(loss, -0.3) for loss in critic]) == settled
    assert not _settled([(loss, -0.3 * 2**index) for index, loss in enumerate(critic)])


def test_without_penalty_nothing_is_zero() -> None:
    _, share = run(replace(PAPER, penalty=0.0), episodes=40)
    assert share < 0.01


def test_one_seed_gives_the_same_trials_and_another_gives_others() -> None:
    one, two, other = (run(PAPER, seed, 40)[0] for seed in (3, 3, 4))
    assert [e.executed for e in one] == [e.executed for e in two]
    assert [e.executed for e in one] != [e.executed for e in other]


def test_targets_follow_softly() -> None:
    agent = ProximalDDPG(replace(PAPER, tau=0.5), seed=0)
    before = [p.clone() for p in agent.target_critic.parameters()]
    episode = environment().carry_out((0.1, 0.5, 0.9))
    agent.update(transitions([episode], np.array([episode.rewards])))
    for old, target, critic in zip(before, agent.target_critic.parameters(), agent.critic.parameters(), strict=True):
        torch.testing.assert_close(target, (old + critic) / 2)


def test_sparsity_counts_exact_zeros_of_all_networks() -> None:
    one, two = nn.Linear(3, 2), nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        one.weight[0] = 0.0
        two.weight[0] = 0.0
    assert sparsity(one, two) == pytest.approx(4 / 10)


def test_the_critics_loss_is_the_papers() -> None:
    agent = ProximalDDPG(AgentSettings(learning_rate=3e-3, penalty=0.0, discount=0.5), seed=0)
    episode = environment(credit="episode").carry_out((0.2, 0.4, 0.6))
    states, actions, rewards = episode.states, np.array(episode.executed, np.float32), (0.3, 0.2, 1.0)
    with torch.no_grad():
        for network in (agent.critic, agent.target_critic):
            network[-1].bias.fill_(0.7)
    # (7), and targets are still what they are copies of: y = r + gamma Q(s', mu(s')), and r alone at the end.
    following = agent.value(states[1:3], agent.act(states[1:3]))
    y = np.array([rewards[0] + 0.5 * following[0], rewards[1] + 0.5 * following[1], rewards[2]])
    expected = np.mean((y - agent.value(states[:3], actions)) ** 2)
    before = agent.act(states[:3])
    critic_loss, actor_loss = agent.update(transitions([episode], np.array([rewards])))
    assert critic_loss == pytest.approx(expected, rel=1e-4)
    # (6): the actor ascends Q, of the critic after its step.
    assert actor_loss == pytest.approx(-float(agent.value(states[:3], before).mean()), rel=1e-4)


def test_the_critic_learns_from_the_next_states_value() -> None:
    # With a discount of 1 and the reward at the end, every step's value becomes the reward.
    agent = ProximalDDPG(AgentSettings(learning_rate=3e-3, penalty=0.0, discount=1.0), seed=0)
    episode = environment(credit="episode").carry_out((0.2, 0.4, 0.6))
    rows = transitions([episode], np.array([[0.0, 0.0, 1.0]]))
    for _ in range(800):
        agent.update(rows)
    found = agent.value(episode.states[:3], np.array(episode.executed, np.float32))
    np.testing.assert_allclose(found, 1, atol=0.15)

"""What is not finite is caught where it begins, and says what to change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.trial import Candidate
from edgeprune.search.ddpg import AgentSettings, ProximalDDPG, Transitions
from edgeprune.search.reward import Reward
from edgeprune.search.states import KNOTS, Losses, SensitiveStates

GROUP = Group("fc1", 4, 1, 1, 10.0, 10.0, 40, ("fc1",))


def rows(reward: float) -> Transitions:
    import torch

    s = torch.rand(8, 4)
    return Transitions(s, torch.rand(8, 1), torch.full((8, 1), reward), s, torch.ones(8, 1))


def test_an_agent_that_diverges_says_its_learning_rate() -> None:
    agent = ProximalDDPG(AgentSettings(learning_rate=1e10, penalty=0.0), seed=0)

    def learn() -> None:
        for _ in range(20):
            agent.update(rows(1.0))

    with pytest.raises(UsageError, match=r"agent diverged: .* after \d+ updates, at a learning rate of 1e\+10"):
        learn()


def test_no_proposal_comes_of_weights_that_are_not_finite() -> None:
    import torch

    agent = ProximalDDPG(AgentSettings(learning_rate=1e-3, penalty=0.0), seed=0)
    with torch.no_grad():
        next(agent.actor.parameters()).fill_(math.nan)
        next(agent.critic.parameters()).fill_(math.nan)
    with pytest.raises(UsageError, match="actor's proposal is not finite"):
        agent.act(np.zeros((1, 4), np.float32))
    with pytest.raises(UsageError, match="critic's estimate is not finite"):
        agent.value(np.zeros((1, 4), np.float32), np.zeros(1, np.float32))


def test_rewards_are_finite() -> None:
    for figures, says in (
        ({"accuracy": 0.0}, "accuracy is 0.0: expected a finite number above 0"),
        ({"ncr": math.nan}, "ncr is nan"),
        ({"beta": -1.0}, "beta is -1.0: expected a finite number 0 or more"),
        ({"gamma": math.inf}, "gamma is inf"),
    ):
        with pytest.raises(UsageError, match=says):
            Reward(**{"accuracy": 1.0, "ncr": 2.0, "latency": 0.5, "memory": 0.5, **figures})
    reward = Reward(0.9, 2.0, 0.5, 0.5)
    with pytest.raises(UsageError, match="the reward of a candidate is nan, from an accuracy of nan"):
        reward(Candidate(PruningPlan({}), math.nan, 2.0, None, 0))


def test_states_are_finite() -> None:
    lost = [math.inf, 3.0, 2.0, 1.0, 0.0]
    with pytest.raises(UsageError, match=r"group 'fc1' is not finite; .*--criterion"):
        SensitiveStates([GROUP], Losses({"fc1": lost}))
    assert np.isfinite(SensitiveStates([GROUP], Losses({"fc1": [4.0, *lost[1:]]})).row(0, [])).all()
    assert len(KNOTS) == 9

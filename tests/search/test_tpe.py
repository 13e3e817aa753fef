from __future__ import annotations

import numpy as np
import pytest
from search.test_methods import GROUPS, NCR, formula

from edgeprune.core.design import PruningPlan
from edgeprune.core.trial import Candidate
from edgeprune.search.drive import drive
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.methods import METHODS
from edgeprune.search.reward import Reward
from edgeprune.search.space import Space, Widths
from edgeprune.search.states import Losses
from edgeprune.search.tpe import tpe


def run(seed: int, episodes: int = 30, ahead: int = 0) -> list[Episode]:
    environment = Environment(
        Space(GROUPS, 350), formula, Reward(1.0, NCR, 1.0, 1.0), min_ncr=NCR, credit="episode",
        states=METHODS["random"].states(GROUPS, lambda: Losses({})),
    )  # fmt: skip
    found: list[Episode] = []
    result = drive(
        tpe(environment, episodes=episodes, seed=seed), environment, ahead=ahead,
        on_episode=lambda _, episode: found.append(episode),
    )  # fmt: skip
    assert result.episodes == len(found) == episodes
    return found


def test_plans_are_brought_to_the_rate_and_follow_from_the_seed() -> None:
    one, again, other = run(1), run(1), run(2)
    assert all(episode.candidate.ncr >= NCR for episode in one)
    assert [each.executed for each in one] == [each.executed for each in again]
    assert [each.executed for each in one] != [each.executed for each in other]


def test_it_learns_and_may_be_told_late() -> None:
    for ahead in (0, 1):
        late = np.mean([[episode.reward for episode in run(seed, 40, ahead)][20:] for seed in range(3)])
        early = np.mean([[episode.reward for episode in run(seed, 40, ahead)][:10] for seed in range(3)])
        assert late > early


def test_it_ends_when_it_is_told_to() -> None:
    def never(widths: Widths) -> Candidate:
        return Candidate(PruningPlan({}), 1.0, NCR, None, 0)

    environment = Environment(
        Space(GROUPS, 350), never, Reward(1.0, NCR, 1.0, 1.0), min_ncr=NCR, credit="episode",
        states=METHODS["random"].states(GROUPS, lambda: Losses({})),
    )  # fmt: skip
    searching = tpe(environment, episodes=5, seed=0)
    assert next(searching) is not None
    with pytest.raises(StopIteration):
        searching.send(None)

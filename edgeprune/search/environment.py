"""Pruning as a Markov decision process ([ACNN], section 1): one episode walks the groups in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from edgeprune.core.measurement import Measurement
from edgeprune.core.trial import Candidate
from edgeprune.search.frontier import Frontier, next_narrower, next_wider
from edgeprune.search.reward import Rewarding
from edgeprune.search.space import Space, Widths
from edgeprune.search.states import PaperStates, Rows, States

Credit = Literal["step", "episode"]
#: Plans looked at, at most, for one that is new.
_LOOKED_AT = 3000
#: By how much a plan may be predicted to break a bound that is proposed where none is left that keeps it.
_NEAR = 0.15


class StopSearch(Exception):  # noqa: N818 - it is no error: the search ends with what it has
    """Raised by `evaluate`: no more candidates can be evaluated. The message says why."""


class Underway(Protocol):
    """A candidate that is being evaluated: the host's part is done, the device may still be at it."""

    def result(self) -> Candidate:
        """What was found out, waiting for it. Raises StopSearch, or whatever measuring raises."""


#: Begins to evaluate a plan; groups that are not named stay whole.
Evaluate = Callable[[Widths], Candidate | Underway]


@dataclass(frozen=True, slots=True)
class Proposal:
    """Sparsities (groups,) that a search proposes. Without `narrow` the plan may stay short of the rate asked for."""

    sparsities: tuple[float, ...]
    narrow: bool = True


@dataclass(frozen=True, slots=True)
class Episode:
    """One walk. Rows are steps: `states` (T + 1, D), the others (T,)."""

    states: Rows
    proposed: tuple[float, ...]
    #: What was really done, after clipping and rounding to allowed widths: this is what the agent learns from.
    executed: tuple[float, ...]
    rewards: tuple[float, ...]
    candidate: Candidate
    reward: float


@dataclass(frozen=True, slots=True)
class Begun:
    """An episode that is being evaluated."""

    proposed: tuple[float, ...]
    widths: dict[str, int]
    executed: tuple[float, ...]
    #: One per group where credit is given step by step, else one.
    candidates: tuple[Candidate | Underway, ...]


class Environment:
    """Turns actions into widths, widths into rewards.

    The action a_t in [0, 1] is the share of group t's channels that goes. `states` makes what an agent sees of the
    groups; without it the paper's S_t.

    Actions are clipped to the groups' floors and rounded to allowed widths. Where bounds are given (`frontier`) all
    groups are narrowed or widened together until the plan just keeps them; else narrowed to what `min_ncr` asks for. A
    plan that was proposed before is moved to the nearest new one.

    `earlier` are episodes of another search on the same network, whose plans are not proposed again.

    `credit` "step" is the paper's: r_t is the reward after pruning group t, the later ones still whole; it proposes
    what it likes. "episode" gives every step the reward of the finished plan (as AMC does): one evaluation per episode,
    for nets of many groups.
    """

    def __init__(
        self,
        space: Space,
        evaluate: Evaluate,
        reward: Rewarding,
        *,
        min_ncr: float | None,
        credit: Credit,
        states: States | None = None,
        frontier: Frontier | None = None,
        earlier: Sequence[Episode] = (),
    ) -> None:
        self.groups, self.neurons = space.groups, space.neurons
        self._space = space
        self.min_ncr = min_ncr
        self.states = states or PaperStates(self.groups)
        self.frontier = frontier
        self.reward = reward
        self._evaluate = evaluate
        self._credit = credit
        #: Episodes of searches before this one, rewarded as this one rewards: a plan is worth that whoever proposed it.
        self.earlier = tuple(self._rewarded(episode) for episode in earlier)
        self._proposed = {self._plan(episode.candidate.plan.widths) for episode in earlier}

    def begin(self, proposal: Proposal) -> Begun | None:
        """Begin to evaluate the plan of a proposal, or the nearest new one; None where there is none left."""
        widths: dict[str, int] | None = self.widths(proposal.sparsities, narrow=proposal.narrow)
        assert widths is not None
        if self._credit == "episode":
            widths = self._new(widths, narrow=proposal.narrow)
            if widths is None:
                return None
            self._proposed.add(self._plan(widths))
        partial: dict[str, int] = {}
        candidates: list[Candidate | Underway] = []
        for step, group in enumerate(self.groups):
            partial[group.name] = widths[group.name]
            if self._credit == "step" or step == len(self.groups) - 1:
                candidates.append(self._evaluate(dict(partial)))
        return Begun(proposal.sparsities, widths, self.executed(widths), tuple(candidates))

    def finish(self, begun: Begun) -> Episode:
        """The episode, once it is evaluated. The states are those of what was executed."""
        candidates = [each if isinstance(each, Candidate) else each.result() for each in begun.candidates]
        rewards = [self.reward(candidate) for candidate in candidates]
        final = rewards[-1]
        if self._credit == "episode":
            rewards = [final] * len(self.groups)
        if self.frontier is not None and isinstance(candidates[-1].cost, Measurement):
            self.frontier.costs.learn(begun.widths, candidates[-1].cost)
        rows = self.states.rows(begun.executed)
        return Episode(rows, begun.proposed, begun.executed, tuple(rewards), candidates[-1], final)

    def carry_out(self, sparsities: Sequence[float], *, narrow: bool = True) -> Episode:
        """Evaluate the plan of these sparsities (groups,), or the nearest new one, at once.

        Raises StopSearch where there is no new one left.
        """
        begun = self.begin(Proposal(tuple(sparsities), narrow))
        if begun is None:
            raise StopSearch("every plan has been tried")
        return self.finish(begun)

    def executed(self, widths: Widths) -> tuple[float, ...]:
        """The sparsities (groups,) that `widths` come to."""
        return tuple(1.0 - widths[group.name] / group.channels for group in self.groups)

    def widths(self, sparsities: Sequence[float], *, narrow: bool = True) -> dict[str, int]:
        """The allowed widths of `sparsities` (groups,), brought to the bounds all together by one factor.

        Scaling all together keeps what the actor said about the groups' proportions. Clipping one after the other
        leaves the last ones at their floors whatever it says, and it learns nothing about them (tried; it got stuck).
        """
        keep = [
            group.channels * (1.0 - min(max(a, 0.0), 1.0)) for a, group in zip(sparsities, self.groups, strict=True)
        ]
        if narrow and self.frontier is not None:
            return self.frontier.fit(keep)
        low, high = 0.0, 1.0
        if not narrow or self._fits(self._scaled(keep, high)):
            return self._scaled(keep, high)
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits(self._scaled(keep, middle)) else (low, middle)
        return self._scaled(keep, low)

    def ncr(self, widths: Widths) -> float:
        """Neurons of the original network over neurons left."""
        return self._space.ncr(widths)

    def missing(self, widths: Widths) -> float:
        """By how much a plan is short of what is asked for, as far as is known; 0 or less: it is enough."""
        if self.frontier is not None:
            return self.frontier.excess(widths)
        return 0.0 if self.min_ncr is None else self.min_ncr / self.ncr(widths) - 1.0

    def is_new(self, widths: Widths) -> bool:
        """Whether this plan was not proposed before."""
        return self._plan(widths) not in self._proposed

    def _plan(self, widths: Widths) -> tuple[int, ...]:
        return tuple(widths.get(group.name, group.channels) for group in self.groups)

    def _rewarded(self, episode: Episode) -> Episode:
        reward = self.reward(episode.candidate)
        return replace(episode, reward=reward, rewards=(reward,) * len(self.groups))

    def _scaled(self, keep: Sequence[float], factor: float) -> dict[str, int]:
        return {
            group.name: group.fitting(round(width * factor)) for width, group in zip(keep, self.groups, strict=True)
        }

    def _fits(self, widths: Widths) -> bool:
        return self.missing(widths) <= 0.0

    def _new(self, widths: dict[str, int], *, narrow: bool) -> dict[str, int] | None:
        """The nearest plan (sum of the groups' differences, as shares) that was not proposed and is enough.

        Where all that are predicted to be enough were proposed, the one that is predicted to be nearest to it, if it is
        near: near a bound that can hardly be kept predictions are not good enough to stop there.
        """
        if self.is_new(widths):
            return widths
        start = tuple(widths.values())
        channels = [group.channels for group in self.groups]
        heap: list[tuple[float, tuple[int, ...]]] = [(0.0, start)]
        reached = {start}
        nearest: tuple[float, dict[str, int] | None] = (_NEAR, None)
        for _ in range(_LOOKED_AT):
            if not heap:
                break
            _, plan = heapq.heappop(heap)
            named = dict(zip(widths, plan, strict=True))
            if plan not in self._proposed:
                missing = self.missing(named) if narrow else 0.0
                if missing <= 0.0:
                    return named
                if missing < nearest[0]:
                    nearest = (missing, named)
            for other in self._neighbours(plan):
                if other not in reached:
                    reached.add(other)
                    distance = sum(abs(a - b) / c for a, b, c in zip(other, start, channels, strict=True))
                    heapq.heappush(heap, (distance, other))
        return nearest[1]

    def _neighbours(self, plan: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Plans in which one group has a step more or less."""
        for index, group in enumerate(self.groups):
            for width in (next_wider(group, plan[index]), next_narrower(group, plan[index])):
                if width != plan[index]:
                    yield (*plan[:index], width, *plan[index + 1 :])


def uniform_sparsity(environment: Environment) -> float:
    """The smallest sparsity that, given to every group alike, is enough for what is asked."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        widths = environment.widths([middle] * len(environment.groups), narrow=False)
        low, high = (low, middle) if environment.missing(widths) <= 0.0 else (middle, high)
    return high

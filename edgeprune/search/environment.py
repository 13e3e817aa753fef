"""Pruning as a Markov decision process ([ACNN], section 1): one episode walks the groups in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.core.types import Group
from edgeprune.search.reward import Candidate, Reward
from edgeprune.search.states import PaperStates, Rows, State, States

Credit = Literal["step", "episode"]
#: Channels left, by the name of the group.
Widths = Mapping[str, int]


class StopSearch(Exception):  # noqa: N818 - it is no error: the search ends with what it has
    """Raised by `evaluate`: no more candidates can be evaluated. The message says why."""


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


class Environment:
    """Turns actions into widths, widths into rewards.

    The action a_t in [0, 1] is the share of group t's channels that goes. `states` makes what an agent sees of the
    groups; without it the paper's S_t.

    Actions are clipped to the groups' floors, narrowed together to what `min_ncr` asks for, and rounded to allowed
    widths.

    `credit` "step" is the paper's: r_t is the reward after pruning group t, the later ones still whole. "episode" gives
    every step the reward of the finished plan (as AMC does): one evaluation per episode, for nets of many groups.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        evaluate: Callable[[Widths], Candidate],
        reward: Reward,
        *,
        neurons: int,
        min_ncr: float | None,
        credit: Credit,
        states: States | None = None,
    ) -> None:
        self.groups = tuple(groups)
        self.neurons = neurons
        self.min_ncr = min_ncr
        self.states = states or PaperStates(self.groups)
        self._evaluate = evaluate
        self._reward = reward
        self._credit = credit

    def run(self, act: Callable[[int, State], float]) -> Episode:
        """Walk all groups; `act(step, state)` proposes the sparsity of each, seeing the proposals before it."""
        proposed: list[float] = []
        for step in range(len(self.groups)):
            proposed.append(float(act(step, self.states.row(step, proposed))))
        return self.carry_out(proposed)

    def carry_out(self, proposed: Sequence[float], *, narrow: bool = True) -> Episode:
        """Evaluate the plan of these sparsities (groups,). The states are those of what was executed.

        Without `narrow` the plan may stay short of the NCR asked for.
        """
        widths = self.widths(proposed, narrow=narrow)
        executed = self.executed(widths)
        rewards: list[float] = []
        partial: dict[str, int] = {}
        candidate: Candidate | None = None
        for step, group in enumerate(self.groups):
            partial[group.name] = widths[group.name]
            if self._credit == "step" or step == len(self.groups) - 1:
                candidate = self._evaluate(dict(partial))
                rewards.append(self._reward(candidate))
        assert candidate is not None
        final = rewards[-1]
        if self._credit == "episode":
            rewards = [final] * len(self.groups)
        rows = self.states.rows(executed)
        return Episode(rows, tuple(proposed), executed, tuple(rewards), candidate, final)

    def executed(self, widths: Widths) -> tuple[float, ...]:
        """The sparsities (groups,) that `widths` come to."""
        return tuple(1.0 - widths[group.name] / group.channels for group in self.groups)

    def widths(self, sparsities: Sequence[float], *, narrow: bool = True) -> dict[str, int]:
        """The allowed widths of `sparsities` (groups,), all narrowed by one factor where `min_ncr` asks for it.

        Narrowing all together keeps what the actor said about the groups' proportions. Clipping one after the other
        leaves the last ones at their floors whatever it says, and it learns nothing about them (tried; it got stuck).
        """
        keep = [
            group.channels * (1.0 - min(max(a, 0.0), 1.0)) for a, group in zip(sparsities, self.groups, strict=True)
        ]
        low, high = 0.0, 1.0
        if not narrow or self._fits(keep, high):
            return self._scaled(keep, high)
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits(keep, middle) else (low, middle)
        return self._scaled(keep, low)

    def ncr(self, widths: Widths) -> float:
        """Neurons of the original network over neurons left."""
        gone = sum((group.channels - widths[group.name]) * group.neurons_per_channel for group in self.groups)
        return self.neurons / (self.neurons - gone)

    def _scaled(self, keep: Sequence[float], factor: float) -> dict[str, int]:
        return {group.name: group.snap(round(width * factor)) for width, group in zip(keep, self.groups, strict=True)}

    def _fits(self, keep: Sequence[float], factor: float) -> bool:
        return self.min_ncr is None or self.ncr(self._scaled(keep, factor)) >= self.min_ncr


def uniform_sparsity(environment: Environment) -> float:
    """The smallest sparsity that, given to every group alike, reaches the NCR asked for."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        widths = environment.widths([middle] * len(environment.groups), narrow=False)
        reached = environment.min_ncr is None or environment.ncr(widths) >= environment.min_ncr
        low, high = (low, middle) if reached else (middle, high)
    return high

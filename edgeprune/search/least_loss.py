"""Plans worked out from what is lost with each width of each group and what widths cost, without evaluating any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeprune.core.design import Group
from edgeprune.search.frontier import next_narrower, next_wider
from edgeprune.search.space import Widths
from edgeprune.search.states import SensitiveStates

_Plan = dict[str, int]
#: Plans that say something of losses; how far these may be off, a share of what they were said to be.
_ENOUGH, _OFF = 8, 0.7


def of_least_loss_at(
    groups: Sequence[Group], states: SensitiveStates, ncr: Callable[[Widths], float], least: float
) -> _Plan:
    """The widths at which the last channel of every group costs alike for the neurons it has, at a rate of `least`."""
    widths = {group.name: group.channels for group in groups}
    while ncr(widths) < least:
        prices = []
        for step, group in enumerate(groups):
            width = widths[group.name]
            smaller = group.snap(width - max(1, group.channels // 100))
            if smaller < width:
                rise = states.lost(step, smaller) - states.lost(step, width)
                prices.append((rise / float((width - smaller) * group.neurons_per_channel), step, smaller))
        if not prices:
            break
        _, step, smaller = min(prices)
        widths[groups[step].name] = smaller
    return widths


def learnt_times(
    groups: Sequence[Group], states: SensitiveStates, plans: Sequence[Widths], scores: Sequence[float]
) -> tuple[float, ...]:
    """By how many times each group's loss is what it was said to be, from what plans have scored; () of too few.

    Scores fall with the sum of losses, at a rate that is the quotient of how far either scatters, and with a doubt for
    each group: ridge regression around once, as far off as `_OFF` says. (A slope as the rate is negative just where
    the losses told put plans in the wrong order.)
    """
    if len(plans) < _ENOUGH:
        return ()
    lost = np.array([[states.lost(step, plan[group.name]) for step, group in enumerate(groups)] for plan in plans])
    lost -= lost.mean(0)
    fall = np.mean(scores) - np.array(scores)
    total = lost.sum(1)
    rate = float(fall.std() / max(total.std(), 1e-12))
    if rate == 0.0:
        return ()
    left = fall - rate * total
    noise = max(float(left @ left) / len(left), 1e-12)
    own = rate * lost
    times = 1.0 + np.linalg.solve(own.T @ own / noise + np.eye(len(groups)) / _OFF**2, own.T @ left / noise)
    return tuple(np.clip(times, 0.1, 4.0).tolist())


@dataclass(frozen=True, slots=True)
class LeastLoss:
    """The plan that loses least of those that keep bounds, where losses add up over groups.

    `missing(widths)` says by how much a plan is predicted to break its bounds; 0 or less keeps them.
    """

    groups: Sequence[Group]
    states: SensitiveStates
    missing: Callable[[Widths], float]
    #: By how many times each group's loss is what it was said to be; empty: it is that.
    times: Sequence[float] = ()
    #: Widths that groups are not narrowed below, where those are wider than their floors.
    least: Mapping[str, int] = field(default_factory=dict)

    def plan(self) -> _Plan:
        """Channels go a step at a time, always where the loss rises least for the predicted cost that goes with it.

        Where losses are known to add up, groups then exchange channels as long as the sum falls: a step down that was
        cheap when it was taken need not be part of the best plan.
        """
        widths = self._narrowed({group.name: group.channels for group in self.groups})
        return self._traded(widths) if self.states.additive else widths

    def _loss(self, step: int, width: int) -> float:
        return self.states.lost(step, width) * (self.times[step] if self.times else 1.0)

    def _narrower(self, group: Group, width: int) -> int:
        return min(width, max(next_narrower(group, width), self.least.get(group.name, 0)))

    def _steps_down(self, group: Group, width: int) -> set[int]:
        """A step, and all of a group that may go: half of a block may save nothing where the whole saves much."""
        least = max(group.least, self.least.get(group.name, 0))
        return {self._narrower(group, width), least if least == 0 else width} - {width}

    def _can_give(self, group: Group, plan: Widths) -> bool:
        return self._narrower(group, plan[group.name]) < plan[group.name]

    def _lost(self, plan: Widths) -> float:
        return sum(self._loss(step, plan[group.name]) for step, group in enumerate(self.groups))

    def _narrowed(self, widths: _Plan, kept: str = "") -> _Plan:
        """`widths`, narrowed until the bounds are kept, or as far as they can be; not the group `kept`."""
        while (before := self.missing(widths)) > 0.0:
            prices = []
            for step, group in enumerate(self.groups):
                width = widths[group.name]
                for smaller in self._steps_down(group, width) if group.name != kept else ():
                    rise = self._loss(step, smaller) - self._loss(step, width)
                    # Where a step is predicted to bring nothing it is taken last.
                    brings = max(before - self.missing({**widths, group.name: smaller}), 1e-6)
                    prices.append((rise / brings, step, smaller))
            if not prices:
                break
            _, step, smaller = min(prices)
            widths = {**widths, self.groups[step].name: smaller}
        return widths

    def _filled(self, widths: _Plan, kept: str = "") -> _Plan:
        """`widths`, widened while they keep the bounds, by the steps that win most back; not the group `kept`."""
        while True:
            gains = []
            for step, group in enumerate(self.groups):
                width = widths[group.name]
                wider = {**widths, group.name: next_wider(group, width)}
                gain = self._loss(step, width) - self._loss(step, wider[group.name])
                if gain > 0 and group.name != kept and self.missing(wider) <= 0.0:
                    gains.append((gain, step, wider))
            if not gains:
                return widths
            widths = max(gains, key=lambda each: each[:2])[2]

    def _traded(self, widths: _Plan) -> _Plan:
        """`widths`, with one group a step wider and others narrower for it, as long as the sum falls.

        As many others as it takes: a wide step (a residual stream that all blocks share) is bought back by several
        small ones, or not at all.
        """
        least = self._lost(widths)
        while True:
            fitting = (plan for plan in self._exchanges(widths) if self.missing(plan) <= 0.0)
            found = min(fitting, key=self._lost, default=widths)
            if self._lost(found) >= least - 1e-9:
                return widths
            widths, least = found, self._lost(found)

    def _exchanges(self, widths: _Plan) -> Iterator[_Plan]:
        for group in self.groups:
            width = widths[group.name]
            if width and 0 in self._steps_down(group, width):
                yield self._filled({**widths, group.name: 0}, group.name)
            # What is gone comes back as a little, or as a whole.
            for more in {next_wider(group, width), group.channels if width == 0 else next_wider(group, width)}:
                wider = {**widths, group.name: more}
                yield self._filled(self._narrowed(wider, group.name), group.name)
                # The cheapest steps may together bring far more than is needed, where one group alone brings just that.
                for giver in self.groups:
                    plan = wider
                    while giver is not group and self.missing(plan) > 0.0 and self._can_give(giver, plan):
                        plan = {**plan, giver.name: self._narrower(giver, plan[giver.name])}
                    yield plan

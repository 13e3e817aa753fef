"""Where plans lie that just keep the bounds, by what is known of their costs: nothing is gained by going further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.core.design import Group
from edgeprune.search.costs import CostModel, Costs
from edgeprune.search.reward import Limits
from edgeprune.search.space import Space, Widths

#: Share of a bound on latency, memory or size that proposals stay below it: twice the median error of predictions,
#: between these; the largest until so many plans were measured.
LEAST_MARGIN, MARGIN, TRUSTED_FROM = 0.003, 0.02, 8
#: Channels that kernels take at a time on vector units of 256 and of 512 bits: a layer of fewer may be slower.
BLOCKS = (8, 16)


class Frontier:
    """Plans are narrowed and widened until they just keep `limits`, by `costs` as far as these have learnt.

    The rate is known exactly. The device has the last word: it measures every plan.
    """

    def __init__(self, space: Space, limits: Limits, costs: Costs) -> None:
        self._space, self._groups = space, space.groups
        self.limits, self.costs = limits, costs

    def drawn(self, random: np.random.Generator) -> Frontier:
        """The same bounds by costs that are as likely as those that are believed."""
        return Frontier(self._space, self.limits, self.costs.drawn(random))

    def least(self) -> dict[str, int]:
        """The narrow plan that proposals start from: of `narrow_plans` the first that is predicted to keep the bounds.

        Where none is, the one that is nearest to them.
        """
        plans = narrow_plans(self._groups)
        over = [self.excess(plan) for plan in plans]
        fitting = (plan for plan, excess in zip(plans, over, strict=True) if excess <= 0.0)
        return next(fitting, plans[over.index(min(over))])

    def excess(self, widths: Widths) -> float:
        """By how much a plan is predicted to break its bounds: the largest share of a bound; 0 or less keeps all."""
        over = [model(widths) / (limit * (1.0 - _margin(model))) - 1.0 for limit, model in self._models()]
        if self.limits.ncr is not None:
            over.append(self.limits.ncr / self._space.ncr(widths) - 1.0)
        return max(over)

    def _models(self) -> list[tuple[float, CostModel]]:
        limits, costs = self.limits, self.costs
        pairs = ((limits.latency, costs.latency), (limits.memory, costs.memory), (limits.bytes, costs.bytes))
        return [(limit, model) for limit, model in pairs if limit is not None]

    def fit(self, keep: Sequence[float]) -> dict[str, int]:
        """The allowed widths nearest to the proportions `keep` (channels per group) that just keep the bounds.

        All groups are scaled by one factor, which keeps what was said of their proportions; what rounding to allowed
        widths leaves over goes to the groups that lost most by it, as long as the plan still fits. So a width that is
        predicted to cost no less than the next wider one is never proposed. Where nothing fits it is `least`.
        """
        wanted = [(group.channels, width) for group, width in zip(self._groups, keep, strict=True) if width > 0.0]
        low, high = 0.0, max((channels / max(width, 1e-3) for channels, width in wanted), default=1.0)
        if self.excess(self._scaled(keep, high, {})) <= 0.0:
            return self._scaled(keep, high, {})
        least = self.least()
        for _ in range(20):
            middle = (low + high) / 2
            fits = self.excess(self._scaled(keep, middle, least)) <= 0.0
            low, high = (middle, high) if fits else (low, middle)
        widths = self._scaled(keep, low, least)
        return self._filled(widths, {g.name: width * low for g, width in zip(self._groups, keep, strict=True)})

    def _scaled(self, keep: Sequence[float], factor: float, least: Widths) -> dict[str, int]:
        return {
            group.name: max(group.fitting(width * factor), least.get(group.name, 0))
            for group, width in zip(self._groups, keep, strict=True)
        }

    def _filled(self, widths: dict[str, int], wanted: Mapping[str, float]) -> dict[str, int]:
        """`widths`, widened step by step while they fit, first the group that is farthest below what it wanted."""
        if self.excess(widths) > 0.0:
            return widths
        stuck: set[str] = set()
        while len(stuck) < len(self._groups):
            group = max(
                (group for group in self._groups if group.name not in stuck),
                key=lambda g: (wanted[g.name] - widths[g.name]) / g.channels,
            )
            wider = {**widths, group.name: next_wider(group, widths[group.name])}
            if wider == widths or self.excess(wider) > 0.0:
                stuck.add(group.name)
            else:
                widths = wider
        return widths


def _margin(model: CostModel) -> float:
    fit = model.fit
    return MARGIN if fit.measured < TRUSTED_FROM else min(max(2 * fit.median_error, LEAST_MARGIN), MARGIN)


def narrow_plans(groups: Sequence[Group]) -> list[dict[str, int]]:
    """The narrowest plan, and the narrowest whose layers have whole blocks of channels; each once.

    Kernels take blocks of channels, and what is left over otherwise: on AVX-512 layers of 8 channels were measured to
    be slower than those of 16. So the narrowest network need not be the fastest.
    """
    plans = []
    for block in (1, *BLOCKS):
        plan = {group.name: _in_blocks(group, block) for group in groups}
        if plan not in plans:
            plans.append(plan)
    return plans


def _in_blocks(group: Group, block: int) -> int:
    """The narrowest allowed width of whole blocks; the narrowest where there is none, or no channels of images."""
    width = min(-(-group.least // block) * block, group.channels)
    return width if group.kind == "channels" and group.snap(width) == width else group.least


def step_of(group: Group) -> int:
    """Channels that a group is made wider or narrower by: a hundredth of a wide group, the least there is of others."""
    return max(group.multiple_of, group.channels // 100 // group.multiple_of * group.multiple_of)


def next_wider(group: Group, width: int) -> int:
    """The next allowed width that is wider by a step; the group's own channels for the widest."""
    wider = width // group.multiple_of * group.multiple_of + step_of(group)
    return min(group.channels, max(group.floor, wider))


def next_narrower(group: Group, width: int) -> int:
    """The next allowed width that is narrower by a step; the narrowest for itself."""
    return group.snap(width - step_of(group) + group.multiple_of - 1)

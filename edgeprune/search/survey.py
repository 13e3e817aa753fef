"""Plans that are measured, untuned, before a search begins, so that its first proposals already lie near the bounds.

Whoever goes through them measures each, and has the frontier's costs learn it before it asks for the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgeprune.core.design import Group
from edgeprune.search.frontier import Frontier
from edgeprune.search.least_loss import LeastLoss
from edgeprune.search.states import SensitiveStates


def around_the_bound(groups: Sequence[Group], frontier: Frontier) -> Iterator[dict[str, int]]:
    """One sparsity for all groups, again as better is known where the bound lies; then each as narrow and as wide as it
    may be, around that.
    """
    alike = [0.5 * group.channels for group in groups]
    for _ in range(2):
        yield frontier.fit(alike)
    base = frontier.fit(alike)
    for group in groups:
        for width in (group.least, group.channels):
            yield {**base, group.name: width}


def where_least_is_lost(
    groups: Sequence[Group], states: SensitiveStates, frontier: Frontier, seed: int
) -> Iterator[dict[str, int]]:
    """As many as there are groups: the plans that lose least if costs are what they may well be.

    Costs are drawn as likely as they are (Thompson sampling): what is not known of them is found out where it decides
    which plan is best, and not where nobody would look.
    """
    random = np.random.default_rng(seed)
    for _ in groups:
        drawn = frontier.drawn(random)
        yield LeastLoss(groups, states, drawn.excess, least=drawn.least()).plan()

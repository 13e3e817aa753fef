"""Searches without an agent: what an agent must beat at an equal number of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from edgeprune.search.drive import Searching, SearchResult
from edgeprune.search.environment import Environment, Episode, Proposal, uniform_sparsity
from edgeprune.search.frontier import next_narrower


def uniform(environment: Environment, *, episodes: int, seed: int) -> Searching:  # noqa: ARG001
    """One sparsity for all groups: `episodes` of them, evenly from the least that reaches the bounds to 1."""
    first = uniform_sparsity(environment)
    plans = ((float(a),) * len(environment.groups) for a in np.linspace(first, 1.0, episodes, endpoint=False))
    # All that is brought to the bounds would be one plan: only the first is.
    free = environment.frontier is None
    return _each(Proposal(plan, narrow=free or index == 0) for index, plan in enumerate(plans))


def random(environment: Environment, *, episodes: int, seed: int) -> Searching:
    """Sparsities drawn evenly from [0, 1], brought to the bounds together as every other method's are."""
    noise = np.random.default_rng(seed)
    return _each(Proposal(tuple(noise.uniform(size=len(environment.groups)).tolist())) for _ in range(episodes))


def greedy(environment: Environment, *, episodes: int, seed: int) -> Searching:  # noqa: ARG001
    """NetAdapt's walk (Yang et al. 2018): in each round every group in turn gives up as much as the round asks for, and
    the best of these plans by reward is where the next round begins.

    What is given up is cost, as it is predicted, where there are bounds on it; else neurons. All rounds together use
    `episodes` evaluations and end at what is asked for (where nothing is, at half the neurons), which settles how much
    a round takes. A group at its floor is passed over.
    """
    groups = environment.groups
    channels = np.array([group.channels for group in groups])
    width = channels.astype(float)
    narrower = _cheaper(environment) if environment.frontier is not None else _fewer(environment)
    count, ran = max(1, episodes // len(groups)), 0
    for round_ in range(count):
        asked = 0
        heard: list[Episode] = []
        for index in range(len(groups)):
            tried = width.copy()
            tried[index] = narrower(width, index, (round_ + 1) / count)
            if tried[index] == width[index] or ran >= episodes:
                continue
            more = yield Proposal(tuple((1 - tried / channels).tolist()), narrow=False)
            if more is None:
                return SearchResult()
            heard += more
            asked, ran = asked + 1, ran + 1
        while len(heard) < asked:
            more = yield None
            if more is None:
                return SearchResult()
            heard += more
        if not heard:
            break
        # The first of equals.
        width = channels * (1 - np.array(max(heard, key=lambda episode: episode.reward).executed))
    return SearchResult()


#: The width of group `index` with which a plan (groups,) has gone a share of the way, or as narrow as it may be.
_Narrower = Callable[[npt.NDArray[np.float64], int, float], float]


def _fewer(environment: Environment) -> _Narrower:
    """The way is that of the neurons, to the NCR asked for."""
    groups = environment.groups
    channels, each = (np.array([getattr(g, name) for g in groups]) for name in ("channels", "neurons_per_channel"))
    target = environment.neurons * (1 - 1 / (environment.min_ncr or 2.0))

    def narrower(width: npt.NDArray[np.float64], index: int, share: float) -> float:
        gone = float(((channels - width) * each).sum())
        take = max(target * share - gone, 1.0)
        return float(max(width[index] - np.ceil(take / each[index]), groups[index].least))

    return narrower


def _cheaper(environment: Environment) -> _Narrower:
    """The way is that from the unpruned network's cost to the bounds."""
    groups = environment.groups
    whole = environment.missing({group.name: group.channels for group in groups})

    def narrower(width: npt.NDArray[np.float64], index: int, share: float) -> float:
        group, tried = groups[index], {g.name: int(w) for g, w in zip(groups, width, strict=True)}
        while tried[group.name] > group.least:
            tried[group.name] = next_narrower(group, tried[group.name])
            if environment.missing(tried) <= whole * (1 - share):
                break
        return float(tried[group.name])

    return narrower


def _each(proposals: Iterable[Proposal]) -> Searching:
    for proposal in proposals:
        if (yield proposal) is None:
            break
    return SearchResult()

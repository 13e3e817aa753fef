"""Every search by its name, with what it sees, how it is rewarded, and the criterion its paper uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, get_args

from edgeprune.core.types import Group
from edgeprune.search import simple
from edgeprune.search.agent import edgeprune
from edgeprune.search.algorithm import OnEpisode, SearchResult, acnn
from edgeprune.search.amc import amc
from edgeprune.search.ddpg import AgentSettings
from edgeprune.search.environment import Credit, Environment
from edgeprune.search.states import AmcStates, PaperStates, SensitiveStates, States

MethodName = Literal["edgeprune", "acnn", "amc", "greedy", "random", "uniform"]


class Search(Protocol):
    """Runs at most `episodes` episodes; `on_episode(index, episode)` hears of each."""

    def __call__(self, environment: Environment, *, episodes: int, seed: int, on_episode: OnEpisode) -> SearchResult:
        """Fully determined by `seed` and the environment's answers; a StopSearch ends it early."""


@dataclass(frozen=True, slots=True)
class Method:
    """A search and its surroundings."""

    search: Search
    #: Makes what the agent sees, of the groups and of what the criterion says is lost with each width.
    states: Callable[[Sequence[Group], Mapping[str, Sequence[float]]], States]
    #: How the paper rewards; "step" costs an evaluation per group.
    credit: Credit
    #: Whether plans are held to the NCR asked for; [ACNN] leaves that to the reward.
    bound: bool
    criterion: str
    repair: bool
    #: Whether candidates are tuned for a moment before they are scored.
    tuned: bool


def _paper(groups: Sequence[Group], lost: Mapping[str, Sequence[float]]) -> States:  # noqa: ARG001
    return PaperStates(groups)


def _amc(groups: Sequence[Group], lost: Mapping[str, Sequence[float]]) -> States:  # noqa: ARG001
    return AmcStates(groups)


def make_method(name: MethodName, settings: AgentSettings = AgentSettings()) -> Method:  # noqa: B008 - it is frozen
    """The method `name`; `settings` are the agent's of `edgeprune` and `acnn` (AMC has its paper's own)."""
    match name:
        case "acnn":
            return Method(partial(acnn, settings=settings), _paper, "step", False, "l1", False, False)
        case "amc":
            return Method(amc, _amc, "episode", True, "l1", True, False)
        case "edgeprune":
            return Method(
                partial(edgeprune, settings=settings), SensitiveStates, "episode", True, "reconstruction", True, True
            )
        case _:
            return Method(getattr(simple, name), _paper, "episode", True, "reconstruction", True, True)


#: The rows of `bench paper`: every search, and both agents without the proximal step.
METHODS: dict[str, Method] = {
    **{name: make_method(name) for name in get_args(MethodName)},
    "acnn-noprox": make_method("acnn", AgentSettings(penalty=0.0)),
    "edgeprune-noprox": make_method("edgeprune", AgentSettings(penalty=0.0)),
}

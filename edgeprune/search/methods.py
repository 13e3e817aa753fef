"""Every search by its name, with what it sees, how it is rewarded, and the criterion its paper uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, get_args

from edgeprune.core.design import Group
from edgeprune.search import simple
from edgeprune.search.agent import edgeprune
from edgeprune.search.algorithm import acnn
from edgeprune.search.amc import amc
from edgeprune.search.ddpg import AgentSettings
from edgeprune.search.drive import Searching
from edgeprune.search.environment import Credit, Environment
from edgeprune.search.names import MethodName
from edgeprune.search.states import AmcStates, Losses, PaperStates, SensitiveStates, States


class Search(Protocol):
    """Proposes at most `episodes` plans; `drive` runs it."""

    def __call__(self, environment: Environment, *, episodes: int, seed: int) -> Searching:
        """Fully determined by `seed` and the environment's answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A search and its surroundings, where nothing is said those of ours."""

    search: Search
    #: Makes what the agent sees, of the groups and, where it looks at that, of what is lost with each width, which may
    #: take a while to find out.
    states: Callable[[Sequence[Group], Callable[[], Losses]], States]
    #: How the paper rewards; "step" costs an evaluation per group.
    credit: Credit = "episode"
    #: Whether plans are held to the NCR asked for; [ACNN] leaves that to the reward.
    bound: bool = True
    criterion: str = "reconstruction"
    repair: bool = True
    #: Plans it may propose before it hears of the first (see `drive`); the papers' agents learn from every one.
    ahead: int = 1
    #: Whether candidates are tuned for a moment before they are scored.
    tuned: bool = True
    #: How many times as many episodes as others it gets in `bench paper`, where its paper had more; its candidates are
    #: not tuned, and cost a fraction.
    times: int = 1


def _paper(groups: Sequence[Group], losses: Callable[[], Losses]) -> States:  # noqa: ARG001
    return PaperStates(groups)


def _amc(groups: Sequence[Group], losses: Callable[[], Losses]) -> States:  # noqa: ARG001
    return AmcStates(groups)


def _sensitive(groups: Sequence[Group], losses: Callable[[], Losses]) -> States:
    return SensitiveStates(groups, losses())


_SIMPLE: dict[str, Search] = {"greedy": simple.greedy, "random": simple.random, "uniform": simple.uniform}

#: [ACNN]'s learning rate is the paper's; its penalty leaves 88 to 97 % of an agent's weights at zero (there 96 to 97),
#: and an agent that still tells groups apart. With twice as much all weights go.
PAPER = AgentSettings(learning_rate=1e-3, penalty=0.15)
OURS = AgentSettings(learning_rate=3e-3, penalty=0.6, passes=16, epsilon=1e-2)
#: About 100 pools of experience, after which the reward of [ACNN] settles, and AMC's 400 episodes, at 80 of the others.
ACNN_TIMES, AMC_TIMES = 20, 5


def make_method(
    name: MethodName,
    *,
    learning_rate: float | None = None,
    penalty: float | None = None,
    buffer_size: int | None = None,
) -> Method:
    """The method `name`; the agents of `edgeprune` and `acnn` with other settings than their own where these are given.

    AMC's are its paper's, and the others have none.
    """

    def settings(own: AgentSettings) -> AgentSettings:
        given = {"learning_rate": learning_rate, "penalty": penalty, "buffer_size": buffer_size}
        return replace(own, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]

    match name:
        case "acnn":
            return Method(
                search=partial(acnn, settings=settings(PAPER)),
                states=_paper,
                credit="step",
                bound=False,
                ahead=0,
                criterion="l1",
                repair=False,
                tuned=False,
                times=ACNN_TIMES,
            )
        case "amc":
            return Method(search=amc, states=_amc, criterion="l1", tuned=False, ahead=0, times=AMC_TIMES)
        case "edgeprune":
            return Method(search=partial(edgeprune, settings=settings(OURS)), states=_sensitive)
        case "greedy" | "random" | "uniform":
            return Method(search=_SIMPLE[name], states=_paper)


#: The rows of `bench paper`: every search, and both agents without the proximal step.
METHODS: dict[str, Method] = {
    **{name: make_method(name) for name in get_args(MethodName)},
    "acnn-noprox": make_method("acnn", penalty=0.0),
    "edgeprune-noprox": make_method("edgeprune", penalty=0.0),
}

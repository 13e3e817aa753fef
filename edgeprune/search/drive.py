"""The one loop that runs every search, with one candidate on the host and another on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from edgeprune.core.clock import Laps
from edgeprune.search.environment import Begun, Environment, Episode, Proposal, StopSearch

OnEpisode = Callable[[int, Episode], None]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How the search ended. `losses` holds (critic, actor) per time of learning."""

    episodes: int = 0
    converged: bool = False
    #: Episodes at the start in which the agent had no say.
    warm_up: int = 0
    #: Share of exactly zero weights of the agent; None where there is none.
    agent_sparsity: float | None = None
    losses: tuple[tuple[float, float], ...] = ()
    #: Why it ended before its time; "" where it did not.
    stopped: str = ""


#: A search yields a proposal, or None to wait for what it has not heard of yet, and is sent the episodes that were
#: finished meanwhile, in the order they were proposed; or None: it is to end and return how it did.
Searching = Generator[Proposal | None, list[Episode] | None, SearchResult]


def drive(searching: Searching, environment: Environment, *, ahead: int = 0, on_episode: OnEpisode) -> SearchResult:
    """Run a search to its end; `on_episode(index, episode)` hears of each episode.

    With `ahead` the search proposes that many plans before it hears of the first: the host prepares one while the
    device measures the one before. How many it has heard of at each proposal does not hang on who is faster, so one
    seed gives one search. A StopSearch of `evaluate` ends it with the episodes before.
    """
    underway: deque[Begun] = deque()
    ran = 0

    def finished() -> Episode:
        nonlocal ran
        episode = environment.finish(underway.popleft())
        on_episode(ran, episode)
        ran += 1
        return episode

    try:
        proposal = next(searching)
        while True:
            if proposal is not None:
                begun = environment.begin(proposal)
                if begun is None:
                    break
                underway.append(begun)
            heard: list[Episode] = []
            while underway and (len(underway) > ahead or (proposal is None and not heard)):
                heard.append(finished())
            proposal = searching.send(heard)
        # Nothing is left to try.
        result = _end(searching)
    except StopIteration as end:
        result = end.value
    except StopSearch as stop:
        underway.clear()
        result = replace(_end(searching), stopped=str(stop))
    try:
        while underway:
            finished()
    except StopSearch as stop:
        result = replace(result, stopped=str(stop))
    return replace(result, episodes=ran, warm_up=min(result.warm_up, ran))


def timed(searching: Searching, laps: Laps) -> Searching:
    """The same search; what it takes itself, to learn and to propose, is added to `laps` as "agent"."""
    heard: list[Episode] | None = None
    begun = False
    while True:
        with laps("agent"):
            try:
                proposal = searching.send(heard) if begun else next(searching)
            except StopIteration as end:
                result: SearchResult = end.value
                return result
        begun = True
        heard = yield proposal


def _end(searching: Searching) -> SearchResult:
    """What a search returns when it is told to end."""
    try:
        searching.send(None)
    except StopIteration as end:
        result: SearchResult = end.value
        return result
    raise RuntimeError("a search went on after it was told to end")

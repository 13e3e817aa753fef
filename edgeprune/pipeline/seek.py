"""One search of stage two: for what a run asks for, or for one bound of a front."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgeprune.core.budget import Budget
from edgeprune.core.clock import Laps
from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Measurement
from edgeprune.core.trial import Trial
from edgeprune.pipeline.possible import limits_of, make_reward, with_defaults
from edgeprune.pipeline.settings import SearchSettings
from edgeprune.pipeline.workshop import Narrowest, Workshop
from edgeprune.pruning.shares import LayerShares
from edgeprune.search.costs import Costs
from edgeprune.search.drive import SearchResult, drive, timed
from edgeprune.search.environment import Credit, Environment, Episode
from edgeprune.search.frontier import Frontier
from edgeprune.search.methods import Method
from edgeprune.search.reward import BoundedReward, Reward
from edgeprune.search.space import Space
from edgeprune.search.states import SensitiveStates
from edgeprune.search.survey import around_the_bound, where_least_is_lost


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search is for, and its share of the episodes: what a run asks for, or one bound of a front."""

    asked: Budget
    episodes: int
    #: The bound's, in a front.
    name: str = ""
    #: Whether its network is finished: its trials count for the others, and it needs none itself.
    done: bool = False


@dataclass(frozen=True, slots=True)
class Searcher:
    """Who searches, and what is rewarded."""

    method: Method
    settings: SearchSettings
    seed: int
    #: Plans that are proposed before the first is heard of (see `drive`).
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Experience:
    """What the searches before one found out: their episodes, and what the device was learnt to charge."""

    episodes: Sequence[Episode] = ()
    costs: Costs | None = None
    #: Trials there are already: these, and those of other precisions, of which nothing is learnt.
    trials: int = 0


@dataclass(frozen=True, slots=True)
class Sought:
    """What one search tried, in order, and how it went."""

    trials: list[Trial]
    episodes: list[Episode]
    result: SearchResult
    reward: Reward | BoundedReward
    credit: Credit
    #: None where nothing is bounded.
    frontier: Frontier | None
    #: Plans that were measured, untuned, to learn what widths cost.
    measured: list[PruningPlan]
    #: Of the search, evaluations included, and of the agent in it.
    seconds: float
    agent_seconds: float


def seek(
    shop: Workshop,
    narrowest: Narrowest,
    searcher: Searcher,
    wanted: Wanted,
    keep: Callable[[Trial], None],
    before: Experience | None = None,
) -> Sought:
    """One search for what is `wanted`, after those that left what they had found `before`.

    `keep` hears of each trial before the search does.
    """
    method, settings, before = searcher.method, searcher.settings, before or Experience()
    groups, prepared, possible = shop.prepared.structure.groups, shop.prepared, narrowest.possible
    budget = with_defaults(wanted.asked, possible, prepared.task.metric)
    space = Space(groups, prepared.structure.neurons(prepared.network))
    limits = limits_of(wanted.asked, possible.reference)
    accuracy = prepared.validation_accuracy
    reward = make_reward(settings, budget, limits, possible, accuracy, paper=not method.bound)
    frontier = None
    measured: list[PruningPlan] = []
    if limits and method.bound:
        frontier = Frontier(space, limits, _costs(shop, narrowest) if before.costs is None else before.costs)
        plans = around_the_bound(groups, frontier)
        measured = _learn_costs(shop, frontier, "measuring what widths cost", plans, 2 + 2 * len(groups))
    started, laps = time.monotonic(), Laps()
    with laps("agent"):
        states = method.states(groups, shop.losses)
    if frontier is not None and isinstance(states, SensitiveStates) and states.additive:
        plans = where_least_is_lost(groups, states, frontier, searcher.seed)
        measured += _learn_costs(shop, frontier, "measuring what may lose least", plans, len(groups))
    environment = Environment(
        space,
        shop.evaluator,
        reward,
        min_ncr=budget.min_ncr if method.bound else None,
        credit=settings.credit,
        states=states,
        frontier=frontier,
        # With credit for every step the others are not this one's walks.
        earlier=before.episodes if settings.credit == "episode" else (),
    )
    trials: list[Trial] = []
    found: list[Episode] = []
    title = f"searching for {wanted.name}" if wanted.name else "searching"
    with shop.progress.bar(title, wanted.episodes) as bar:
        record = _recorder(trials, found, before.trials, keep, bar.advance)
        searching = timed(method.search(environment, episodes=wanted.episodes, seed=searcher.seed), laps)
        result = drive(searching, environment, ahead=searcher.ahead, on_episode=record)
    seconds, agents = time.monotonic() - started, laps.seconds.get("agent", 0.0)
    return Sought(trials, found, result, reward, settings.credit, frontier, measured, seconds, agents)


def _costs(shop: Workshop, narrowest: Narrowest) -> Costs:
    """What is known of costs before anything was searched for."""
    prepared, smallest = shop.prepared, narrowest.candidate
    shares = LayerShares(prepared.network, prepared.structure)
    costs = Costs(prepared.structure.groups, shares, int(narrowest.possible.reference.bytes))
    if isinstance(smallest.cost, Measurement):
        costs.learn(smallest.plan.widths, smallest.cost)
    for plan, cost in narrowest.others:
        costs.learn(plan.widths, cost)
    return costs


def _learn_costs(
    shop: Workshop, frontier: Frontier, title: str, plans: Iterator[dict[str, int]], count: int
) -> list[PruningPlan]:
    """Measure so many plans, untuned, each before the next is asked for; which ones."""
    limits = frontier.limits
    measured: list[PruningPlan] = []
    if limits.latency is None and limits.memory is None and limits.bytes is None:
        return measured
    with shop.progress.bar(title, count) as bar:
        for widths in plans:
            plan = shop.evaluator.plan(widths)
            if plan not in measured:
                measured.append(plan)
                cost = shop.evaluator.cost(plan)
                if isinstance(cost, Measurement):
                    frontier.costs.learn(widths, cost)
            bar.advance()
    return measured


def _recorder(
    trials: list[Trial],
    episodes: list[Episode],
    first: int,
    keep: Callable[[Trial], None],
    advance: Callable[[float, str], None],
) -> Callable[[int, Episode], None]:
    """What notes each episode; their trials are counted from `first` on."""
    last = time.monotonic()
    best = float("-inf")

    def record(index: int, episode: Episode) -> None:
        nonlocal last, best
        now = time.monotonic()
        found = episode.candidate
        assert found.cost is not None
        trial = Trial(first + index, found, episode.reward, now - last, episode.proposed, episode.executed)
        last = now
        keep(trial)
        trials.append(trial)
        episodes.append(episode)
        best = max(best, trial.reward)
        advance(1, f"reward {trial.reward:.3f}, best {best:.3f}")

    return record

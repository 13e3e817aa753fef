"""Stage two: what is possible at best, then the agent's search for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from edgeprune.core.budget import Budget
from edgeprune.core.clock import Laps
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import BudgetError, DeviceError
from edgeprune.core.kinds import KINDS
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Candidate, Trial
from edgeprune.core.units import format_bytes, format_cost, format_figure, format_speedup
from edgeprune.pipeline.candidates import Evaluator, RunIdentity
from edgeprune.pipeline.choose import confirm, latency_interval, rank
from edgeprune.pipeline.config import AGENTS
from edgeprune.pipeline.possible import check_possible, kept_already, limits_of, make_reward, with_defaults
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.search import AgentName, BoundedSearch, MeanReward, Possible, Reference, Search
from edgeprune.pipeline.settings import SearchSettings
from edgeprune.pipeline.validate import as_at_the_end
from edgeprune.pipeline.workshop import Workshop, measure_possible, workshop
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.pruning.shares import LayerShares
from edgeprune.pruning.structure import Criterion, Structure, neurons_left
from edgeprune.search.costs import Costs, Fit
from edgeprune.search.drive import SearchResult, drive, timed
from edgeprune.search.environment import Credit, Environment, Episode, StopSearch
from edgeprune.search.frontier import Frontier
from edgeprune.search.methods import Method, make_method
from edgeprune.search.reward import BoundedReward, Reward

#: Fresh processes at least, and seconds at most, in which one of the best trials is measured again.
CONFIRMING_PROCESSES, CONFIRMING_S = 3, 15.0


@dataclass(frozen=True, slots=True)
class Searched:
    """Trials, best first, and how they came about."""

    trials: list[Trial]
    budget: Budget
    possible: Possible
    criterion: Criterion
    #: Its `best_trial` is the first of `trials`, until finalists were tuned.
    summary: Search | BoundedSearch
    #: The score up to which a trial is not told from guessing.
    chance: float
    #: How many images a score is worth (see `telling_images`).
    images: float


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


def run_search(
    wanted: Sequence[Wanted],
    prepared: Prepared,
    run: RunIdentity,
    folder: RunFolder,
    session: Session,
    settings: MeasureSettings,
    progress: Progress,
) -> list[Searched | BudgetError]:
    """Measure what is possible, then search for each of `wanted`, one after the other.

    Every search learns from the trials of those before it, and in the end all trials are ranked for every budget: a
    plan is worth its reward whoever proposed it. Of a budget that cannot be met at all the answer is the BudgetError
    that says so; it is raised where that holds of all. Raises DeviceError.
    """
    settled = prepared.settled
    own = settled.search
    method = make_method(own.method, learning_rate=own.learning_rate, penalty=own.penalty, buffer_size=own.buffer_size)
    # Where the device is this machine a candidate that is tuned would disturb the one that is measured.
    ahead = 0 if KINDS[session.spec.kind].here else method.ahead
    store = TrialStore(folder / "trials.sqlite")
    try:
        with workshop(prepared, run, folder, session, settings, store, progress, ahead=ahead > 0) as shop:
            chance = shop.chance
            possible, smallest = measure_possible(shop)
            _report(possible, smallest, prepared.yardstick.show, progress)
            budgets = [with_defaults(want.asked, possible, prepared.task.metric) for want in wanted]
            answers = _impossible(budgets, possible, shop, run.device)
            for want, impossible in zip(wanted, answers, strict=True):
                if impossible is not None:
                    progress.say(f"{want.name} is left out: {impossible}")
            costs: Costs | None = None
            trials: list[Trial] = []
            episodes: list[Episode] = []
            ways: dict[str, Sought] = {}
            for want, budget, impossible in zip(wanted, budgets, answers, strict=True):
                if impossible is not None:
                    continue
                for line in kept_already(budget, possible):
                    progress.say(line)
                last = seek(
                    shop, method, own, want.asked, possible, smallest,
                    episodes=-(-want.episodes // own.part), seed=settled.seed, ahead=ahead, keep=store.add,
                    title=f"searching for {want.name}" if want.name else "searching", earlier=episodes, costs=costs,
                )  # fmt: skip
                ways[want.name] = last
                trials += last.trials
                episodes += last.episodes
                costs = last.frontier.costs if last.frontier else costs
                if last.result.stopped:
                    break
            if shop.scoring.diverged:
                progress.say(
                    f"tuning {shop.scoring.diverged} candidates came to NaN or infinite losses: they are scored untuned"
                )
            stopped = last.result.stopped
            if stopped:
                if not trials:
                    raise StopSearch(stopped)
                progress.say(f"search ended after {len(trials)} episodes: {stopped}")
            else:
                store.trim(len(trials))
            guessing = sum(trial.candidate.accuracy <= chance for trial in trials)
            if guessing:
                progress.say(
                    f"{guessing} of {len(trials)} trials are not told from guessing "
                    f"({prepared.task.metric.title} up to {prepared.yardstick.show(chance)}): they rank last"
                )
            searched: list[Searched | BudgetError] = []
            for want, budget, impossible in zip(wanted, budgets, answers, strict=True):
                if impossible is not None:
                    searched.append(impossible)
                    continue
                ranked = rank(trials, budget, possible.reference, chance)
                if not (stopped or want.done):
                    try:
                        ranked = confirm_best(shop, trials, budget, possible.reference, settled.schedule.finalists)
                    except StopSearch as stop:
                        stopped = str(stop)
                        progress.say(f"the best trials are not measured again: {stop}")
                # Where the device was lost before its turn came it has what the others found.
                found = ways.get(want.name, last)
                fits = None if found.frontier is None else _say_fit(found.frontier, progress)
                summary = _summary(shop, found, stopped, fits, guessing, ranked[0])
                searched.append(Searched(ranked, budget, possible, shop.criterion, summary, chance, shop.images))
    except StopSearch as stop:
        raise DeviceError(str(stop), f"when it is back, continue with --resume {run.name}") from stop
    finally:
        store.close()
    return searched


def seek(
    shop: Workshop,
    method: Method,
    settings: SearchSettings,
    asked: Budget,
    possible: Possible,
    smallest: Candidate,
    *,
    episodes: int,
    seed: int,
    ahead: int,
    keep: Callable[[Trial], None],
    title: str = "searching",
    earlier: Sequence[Episode] = (),
    costs: Costs | None = None,
) -> Sought:
    """One search for what is `asked`, after those that had `earlier` episodes and left `costs`.

    `keep` hears of each trial before the search does. `possible` and `smallest` as `measure_possible` gives them.
    """
    structure, evaluator, progress = shop.prepared.structure, shop.evaluator, shop.progress
    groups = structure.groups
    budget = with_defaults(asked, possible, shop.prepared.task.metric)
    original = structure.neurons(shop.prepared.network)
    limits = limits_of(asked, possible.reference)
    accuracy = shop.prepared.validation_accuracy
    reward = make_reward(settings, budget, limits, possible, accuracy, paper=not method.bound)
    frontier = None
    measured: list[PruningPlan] = []
    if limits and method.bound:
        if costs is None:
            costs = Costs(groups, LayerShares(shop.prepared.network, structure), int(possible.reference.bytes))
            if isinstance(smallest.cost, Measurement):
                costs.learn(smallest.plan.widths, smallest.cost)
        frontier = Frontier(groups, limits, costs, lambda w: original / neurons_left(groups, original, w))
        measured = _learn_costs(frontier, structure, evaluator, progress)
    started, laps = time.monotonic(), Laps()
    with laps("agent"):
        states = method.states(groups, shop.losses)
    environment = Environment(
        groups,
        evaluator,
        reward,
        neurons=original,
        min_ncr=budget.min_ncr if method.bound else None,
        credit=settings.credit,
        states=states,
        frontier=frontier,
        # With credit for every step the others are not this one's walks.
        earlier=earlier if settings.credit == "episode" else (),
    )
    trials: list[Trial] = []
    found: list[Episode] = []
    with progress.bar(title, episodes) as bar:
        record = _recorder(trials, found, len(earlier), keep, bar.advance)
        searching = timed(method.search(environment, episodes=episodes, seed=seed), laps)
        result = drive(searching, environment, ahead=ahead, on_episode=record)
    seconds, agents = time.monotonic() - started, laps.seconds.get("agent", 0.0)
    return Sought(trials, found, result, reward, settings.credit, frontier, measured, seconds, agents)


def _impossible(budgets: Sequence[Budget], possible: Possible, shop: Workshop, device: str) -> list[BudgetError | None]:
    """Of each budget why it cannot be met, or None. Raises BudgetError where none can be met."""

    def answers(possible: Possible) -> list[BudgetError | None]:
        found: list[BudgetError | None] = []
        for budget in budgets:
            try:
                check_possible(budget, possible, device, shop.prepared.structure)
                found.append(None)
            except BudgetError as error:
                found.append(error)
        return found

    found = answers(possible)
    if any(found):
        # One noisy reading, perhaps of another day, must not end a run.
        again = answers(measure_possible(shop, fresh=True)[0])
        found = [one and other for one, other in zip(found, again, strict=True)]
    if all(found):
        assert found[0] is not None
        raise found[0]
    return found


def _learn_costs(
    frontier: Frontier, structure: Structure, evaluator: Evaluator, progress: Progress
) -> list[PruningPlan]:
    """Measure some plans near the bounds, untuned, so that the first proposals already lie there; which ones.

    One sparsity for all groups, again as better is known where the bound lies; then, around it, each group as wide and
    as narrow as it may be.
    """
    groups = structure.groups
    limits = frontier.limits
    measured: list[PruningPlan] = []
    if limits.latency is None and limits.memory is None and limits.bytes is None:
        return measured
    with progress.bar("measuring what widths cost", 2 + 2 * len(groups)) as bar:

        def learn(widths: dict[str, int]) -> None:
            plan = evaluator.plan(widths)
            measured.append(plan)
            cost = evaluator.cost(plan)
            if isinstance(cost, Measurement):
                frontier.costs.learn(widths, cost)
            bar.advance()

        alike = [0.5 * group.channels for group in groups]
        for _ in range(2):
            learn(frontier.fit(alike))
        base = frontier.fit(alike)
        for group in groups:
            for width in (group.floor, group.channels):
                learn({**base, group.name: width})
    return measured


def _say_fit(frontier: Frontier, progress: Progress) -> dict[str, Fit]:
    """How good the cost models of what is bounded were, for the result and for the user."""
    found = {}
    for name, limit, model in (
        ("latency", frontier.limits.latency, frontier.costs.latency),
        ("memory", frontier.limits.memory, frontier.costs.memory),
        ("bytes", frontier.limits.bytes, frontier.costs.bytes),
    ):
        if limit is None:
            continue
        fit = model.fit
        found[name] = fit
        progress.say(
            f"{name} of {fit.measured} plans, each predicted from the others: off by {100 * fit.median_error:.1f} % "
            f"(median), {100 * fit.p90_error:.1f} % (90th percentile)"
        )
    return found


def _report(possible: Possible, smallest: Candidate, shown: Callable[[float], str], progress: Progress) -> None:
    progress.say(
        f"unpruned on the device: {format_cost(possible.reference.latency, possible.unit)}, "
        f"{format_bytes(possible.reference.memory)} heap; "
        f"possible at best: {format_speedup(1 / possible.latency_share, possible.unit)}, NCR {possible.ncr:.2f} "
        f"(narrowest network, {shown(smallest.accuracy)} before fine-tuning)"
    )


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


def confirm_best(shop: Workshop, trials: list[Trial], budget: Budget, reference: Reference, wanted: int) -> list[Trial]:
    """The trials in order of choice, the best of them raced once more beside `baseline`, as the end will race them."""
    bound, session, progress = budget.max_latency, shop.session, shop.progress
    # A count is the same in every process.
    processes = 1 if session.spec.unit == "instructions" else CONFIRMING_PROCESSES
    alike = as_at_the_end(shop.settings, session.spec.unit, processes, bound, CONFIRMING_S)
    memories = 1 if budget.max_memory is None else None
    with progress.bar("measuring the best again", None) as bar:

        def again(trial: Trial) -> Measurement | Failure:
            cost = shop.evaluator.again(
                trial.candidate.plan,
                alike,
                lambda file: compare_fresh(session, alike, file, shop.baseline_file, memories=memories),
            )
            bar.advance()
            if isinstance(cost, Measurement) and bound is not None:
                latency = latency_interval(cost, bound, reference.latency)
                low, value, high = (
                    f"{format_figure(figure)}x" if bound.relative else format_cost(figure, cost.unit)
                    for figure in (latency.low, latency.value, latency.high)
                )
                progress.say(f"trial {trial.index} in fresh processes: latency {value} ({low} to {high})")
            return cost

        return confirm(trials, wanted, budget, reference, shop.chance, shop.images, again)


def _summary(
    shop: Workshop, found: Sought, stopped: str, fits: Mapping[str, Fit] | None, at_chance: int, best: Trial
) -> Search | BoundedSearch:
    settled, evaluator = shop.prepared.settled, shop.evaluator
    result, own = found.result, found.trials
    agent: AgentName | None = None
    if result.agent_sparsity is not None:
        agent = "ddpg" if settled.search.method not in AGENTS or settled.search.penalty == 0 else "proximal-ddpg"
    summary = Search(
        method=settled.search.method,
        agent=agent,
        credit=found.credit,
        criterion=settled.ranking.criterion,
        episodes=result.episodes,
        converged=result.converged,
        stopped=stopped,
        seconds=round(found.seconds, 2),
        device_seconds=round(shop.profiler.device_seconds, 2),
        measured=evaluator.measured,
        cache_hits=evaluator.cache_hits,
        failures=evaluator.failures,
        candidates=shop.files.how,
        agent_sparsity=None if result.agent_sparsity is None else round(result.agent_sparsity, 4),
        # Whether the agent got better than the random episodes it begins with is for everybody to see.
        warm_up_episodes=result.warm_up,
        mean_reward=MeanReward(
            warm_up=round(statistics.fmean(t.reward for t in own[: result.warm_up or 1]), 5),
            last_quarter=round(statistics.fmean(t.reward for t in own[-max(1, len(own) // 4) :]), 5),
        ),
        losses=tuple((round(c, 6), round(a, 6)) for c, a in result.losses),
        reward=found.reward,
        chance_level=shop.chance,
        at_chance=at_chance,
        best_trial=best.index,
    )
    if fits is None:
        return summary
    return BoundedSearch(**{each.name: getattr(summary, each.name) for each in fields(summary)}, cost_model=fits)

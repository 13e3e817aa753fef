"""Stage two: what is possible at best, then the agent's search for it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from edgeprune.core.budget import Budget
from edgeprune.core.errors import BudgetError, DeviceError
from edgeprune.core.kinds import KINDS
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import Precision
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Trial
from edgeprune.core.units import format_bytes, format_cost, format_figure, format_speedup
from edgeprune.pipeline.candidates import RunIdentity
from edgeprune.pipeline.choose import confirm, latency_interval, rank
from edgeprune.pipeline.field import Field, field_of
from edgeprune.pipeline.possible import check_possible, kept_already, with_defaults
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.search import AgentName, BoundedSearch, MeanReward, Possible, Reference, Search
from edgeprune.pipeline.seek import Experience, Searcher, Sought, Wanted, seek
from edgeprune.pipeline.settings import Settled
from edgeprune.pipeline.validate import as_at_the_end
from edgeprune.pipeline.workshop import Narrowest, measure_narrowest, workshop
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.pruning.structure import Criterion
from edgeprune.search.costs import Fit
from edgeprune.search.environment import StopSearch
from edgeprune.search.frontier import Frontier
from edgeprune.search.methods import make_method
from edgeprune.search.names import AGENTS

#: Fresh processes at least, and seconds at most, in which one of the best trials is measured again; seconds at most
#: where its interval is all that keeps it out.
CONFIRMING_PROCESSES, CONFIRMING_S, PATIENTLY_S = 3, 15.0, 90.0


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


#: A search: the name of what it is for, and its precision.
_Of = tuple[str, Precision]


@dataclass(frozen=True, slots=True)
class _Goal:
    """What one search is for, with its budget, and why that cannot be met at all, or None."""

    wanted: Wanted
    budget: Budget
    impossible: BudgetError | None


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
    searcher = _searcher(prepared.settled, session)
    store = TrialStore(folder / "trials.sqlite")
    try:
        with workshop(prepared, run, folder, session, settings, store, progress, ahead=searcher.ahead > 0) as shop:
            narrowest = measure_narrowest(shop)
            _report(narrowest, prepared.yardstick.show, progress)
            field = field_of(shop, narrowest, [want.asked for want in wanted])
            goals = _goals(wanted, field, run.device)
            found = _seek_all(field, searcher, goals, store.add)
            trials = _trials(found)
            if shop.scoring.diverged:
                progress.say(
                    f"tuning {shop.scoring.diverged} candidates came to NaN or infinite losses: they are scored untuned"
                )
            stopped = _last(found).result.stopped
            if stopped:
                if not trials:
                    raise StopSearch(stopped)
                progress.say(f"search ended after {len(trials)} episodes: {stopped}")
            else:
                store.trim(len(trials))
            return _ranked(field, goals, found, stopped)
    except StopSearch as stop:
        raise DeviceError(str(stop), f"when it is back, continue with --resume {run.name}") from stop
    finally:
        store.close()


def _searcher(settled: Settled, session: Session) -> Searcher:
    own = settled.search
    method = make_method(own.method, learning_rate=own.learning_rate, penalty=own.penalty, buffer_size=own.buffer_size)
    # Where the device is this machine a candidate that is tuned would disturb the one that is measured.
    return Searcher(method, own, settled.seed, 0 if KINDS[session.spec.kind].here else method.ahead)


def _goals(wanted: Sequence[Wanted], field: Field, device: str) -> list[_Goal]:
    """What is searched for. Raises BudgetError where no budget can be met."""
    shop, possible = field.shop, field.possible
    budgets = [with_defaults(want.asked, possible, shop.prepared.task.metric) for want in wanted]
    answers = _impossible(budgets, field, device)
    goals = [_Goal(*each) for each in zip(wanted, budgets, answers, strict=True)]
    for goal in goals:
        if goal.impossible is not None:
            shop.progress.say(f"{goal.wanted.name} is left out: {goal.impossible}")
    return goals


def _seek_all(
    field: Field, searcher: Searcher, goals: Sequence[_Goal], keep: Callable[[Trial], None]
) -> dict[_Of, Sought]:
    """The searches in order, until one is stopped; each learns from those before it at its precision."""
    found: dict[_Of, Sought] = {}
    before = {side.shop.precision: Experience() for side in field.sides}
    for goal in goals:
        if goal.impossible is not None:
            continue
        for line in kept_already(goal.budget, field.possible):
            field.shop.progress.say(line)
        sides = field.able(goal.budget)
        episodes = -(-goal.wanted.episodes // (searcher.settings.part * len(sides)))
        for side in sides:
            precision, name = side.shop.precision, goal.wanted.name
            title = " at ".join(part for part in (name, precision if field.weighed else "") if part)
            known = replace(before[precision], trials=len(_trials(found)))
            wanted = replace(goal.wanted, episodes=episodes, name=title)
            found[name, precision] = sought = seek(side.shop, side.narrowest, searcher, wanted, keep, known)
            costs = sought.frontier.costs if sought.frontier else known.costs
            before[precision] = Experience([*known.episodes, *sought.episodes], costs)
            if sought.result.stopped:
                return found
    return found


def _trials(found: Mapping[_Of, Sought]) -> list[Trial]:
    return [trial for sought in found.values() for trial in sought.trials]


def _last(found: Mapping[_Of, Sought]) -> Sought:
    return list(found.values())[-1]


def _ranked(
    field: Field, goals: Sequence[_Goal], found: Mapping[_Of, Sought], stopped: str
) -> list[Searched | BudgetError]:
    """All trials for every goal, the best of them measured once more, unless the search was `stopped`."""
    shop, possible = field.shop, field.possible
    prepared, progress, chance = shop.prepared, shop.progress, shop.chance
    trials = _trials(found)
    guessing = sum(trial.candidate.accuracy <= chance for trial in trials)
    if guessing:
        progress.say(
            f"{guessing} of {len(trials)} trials are not told from guessing "
            f"({prepared.task.metric.title} up to {prepared.yardstick.show(chance)}): they rank last"
        )
    searched: list[Searched | BudgetError] = []
    for goal in goals:
        if goal.impossible is not None:
            searched.append(goal.impossible)
            continue
        ranked = rank(trials, goal.budget, possible.reference, chance)
        if not (stopped or goal.wanted.done):
            try:
                ranked = confirm_best(field, trials, goal.budget, possible.reference, prepared.schedule.finalists)
            except StopSearch as stop:
                stopped = str(stop)
                progress.say(f"the best trials are not measured again: {stop}")
        # Where the device was lost before its turn came it has what the others found.
        sought = found.get((goal.wanted.name, ranked[0].candidate.precision)) or _last(found)
        fits = None if sought.frontier is None else _say_fit(sought.frontier, progress)
        summary = _summary(field, sought, stopped, fits, guessing, ranked[0])
        searched.append(Searched(ranked, goal.budget, possible, shop.criterion, summary, chance, shop.images))
    return searched


def _impossible(budgets: Sequence[Budget], field: Field, device: str) -> list[BudgetError | None]:
    """Of each budget why it cannot be met, or None. Raises BudgetError where none can be met."""
    structure = field.shop.prepared.structure

    def answers(possible: Possible) -> list[BudgetError | None]:
        found: list[BudgetError | None] = []
        for budget in budgets:
            try:
                check_possible(budget, possible, device, structure)
                found.append(None)
            except BudgetError as error:
                found.append(error)
        return found

    found = answers(field.possible)
    if any(found):
        # One noisy reading, perhaps of another day, must not end a run.
        again = answers(field.again().possible)
        found = [one and other for one, other in zip(found, again, strict=True)]
    if all(found):
        assert found[0] is not None
        raise found[0]
    return found


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


def _report(narrowest: Narrowest, shown: Callable[[float], str], progress: Progress) -> None:
    possible, accuracy = narrowest.possible, narrowest.candidate.accuracy
    progress.say(
        f"unpruned on the device: {format_cost(possible.reference.latency, possible.unit)}, "
        f"{format_bytes(possible.reference.memory)} heap; "
        f"possible at best: {format_speedup(1 / possible.latency_share, possible.unit)}, NCR {possible.ncr:.2f} "
        f"(of {1 + len(narrowest.others)} narrow networks; the narrowest has {shown(accuracy)} before fine-tuning)"
    )


def confirm_best(field: Field, trials: list[Trial], budget: Budget, reference: Reference, wanted: int) -> list[Trial]:
    """The trials in order of choice, the best of them raced once more beside `baseline`, as the end will race them."""
    shop = field.shop
    bound, session, progress = budget.max_latency, shop.session, shop.progress
    evaluators = {side.shop.precision: side.shop.evaluator for side in field.sides}
    # A count is the same in every process.
    processes = 1 if session.spec.unit == "instructions" else CONFIRMING_PROCESSES
    memories = 1 if budget.max_memory is None else None
    with progress.bar("measuring the best again", None) as bar:

        def again(trial: Trial, patiently: bool) -> Measurement | Failure:
            most_s = PATIENTLY_S if patiently else CONFIRMING_S
            alike = as_at_the_end(shop.settings, session.spec.unit, processes, bound, most_s)
            cost = evaluators[trial.candidate.precision].again(
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
    field: Field, found: Sought, stopped: str, fits: Mapping[str, Fit] | None, at_chance: int, best: Trial
) -> Search | BoundedSearch:
    shop = field.shop
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
        precisions=field.weighed,
    )
    if fits is None:
        return summary
    return BoundedSearch(**{each.name: getattr(summary, each.name) for each in fields(summary)}, cost_model=fits)

"""Stage two: what is possible at best, then the agent's search for it."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.core.clock import Laps
from edgeprune.core.devices import Session
from edgeprune.core.errors import BudgetError, DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.progress import Progress
from edgeprune.core.store import CANDIDATES, RunFolder, TrialStore
from edgeprune.core.types import Bound, Budget, Failure, Measurement, MeasureSettings, PruningPlan, Trial, Unit, to_json
from edgeprune.core.units import format_bytes, format_cost, format_figure, format_speedup
from edgeprune.exporters import EXPORTERS
from edgeprune.pipeline.artefacts import metadata
from edgeprune.pipeline.candidates import Evaluator, FileMaker
from edgeprune.pipeline.choose import Reference, confirm, latency_interval, rank
from edgeprune.pipeline.config import AGENTS, FORMAT, RunConfig
from edgeprune.pipeline.criterion import criterion_of
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.scoring import Scoring
from edgeprune.pipeline.staying import Measure, because_of
from edgeprune.pipeline.validate import as_at_the_end
from edgeprune.profilers.cache import MeasurementCache
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.kinds import convolutional
from edgeprune.pruning.shares import LayerShares
from edgeprune.pruning.structure import Criterion, Structure, neurons_left
from edgeprune.search.costs import Costs
from edgeprune.search.drive import SearchResult, drive, timed
from edgeprune.search.environment import Credit, Environment, Episode, StopSearch
from edgeprune.search.frontier import Frontier
from edgeprune.search.methods import Method, make_method
from edgeprune.search.reward import BoundedReward, Candidate, Limits, Reward
from edgeprune.training.brief import BriefTuning
from edgeprune.training.metrics import chance_level, telling_images

#: The rate that is asked for when nothing else is (or half-way to the most that is possible), and the points that may
#: be lost when nobody said: a network that is fast and wrong is of no use to anybody.
DEFAULT_NCR, DEFAULT_DROP = 3.0, 1.0
#: Groups up to which the reward is given after every one of them, as in the paper; beyond, evaluations get too many.
STEP_CREDIT_UP_TO = 4
#: Episodes, where nobody says how many; with convolutions, whose candidates cost more, one in so many of them.
EPISODES, CONVOLVED_PART = 80, 2
#: Steps that a candidate with convolutions is tuned for, and validation images it is then scored on: of unpruned
#: networks up to so many multiply-accumulates; of larger ones fewer, down to this part.
CONVOLVED_STEPS, CONVOLVED_IMAGES, CONVOLVED_MACS, LEAST_PART = 60, 4000, 4_000_000, 1 / 3
#: Fresh processes at least, and seconds at most, in which one of the best trials is measured again.
CONFIRMING_PROCESSES, CONFIRMING_S = 3, 15.0


@dataclass(frozen=True, slots=True)
class Possible:
    """What the narrowest allowed network costs, beside the unpruned one: nothing better can be asked for."""

    ncr: float
    latency_share: float
    memory_share: float
    reference: Reference
    smallest_bytes: int
    #: What `reference.latency` is given in.
    unit: Unit = "s"


@dataclass(frozen=True, slots=True)
class Searched:
    """Trials, best first, and how they came about."""

    trials: list[Trial]
    budget: Budget
    possible: Possible
    criterion: Criterion
    summary: dict[str, Any]
    #: The score up to which a trial is not told from guessing.
    chance: float
    #: How many images a score is worth (see `telling_images`).
    images: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search is for, and its share of the episodes: a run's own settings, or one bound of a front."""

    config: RunConfig
    episodes: int
    #: The bound's, in a front.
    name: str = ""
    #: Whether its network is finished: its trials count for the others, and it needs none itself.
    done: bool = False


@dataclass(frozen=True, slots=True)
class Workshop:
    """What makes, scores and measures networks of plans: one network on one device, for one search or many."""

    config: RunConfig
    prepared: Prepared
    criterion: Ranked
    scoring: Scoring
    files: FileMaker
    evaluator: Evaluator
    profiler: LoopProfiler
    session: Session
    settings: MeasureSettings
    #: The unpruned network's, which everything is raced against.
    baseline_file: Path
    #: The score up to which a plan is not told from guessing, and how many images a score is worth.
    chance: float
    images: float
    progress: Progress


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
    config: RunConfig,
    wanted: Sequence[Wanted],
    prepared: Prepared,
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
    method = make_method(
        config.method, learning_rate=config.agent_lr, penalty=config.penalty, buffer_size=config.buffer_size
    )
    # Where the device is this machine a candidate that is tuned would disturb the one that is measured.
    ahead = 0 if session.spec.kind == "local" else method.ahead
    store = TrialStore(folder / "trials.sqlite")
    try:
        with workshop(config, prepared, folder, session, settings, store, progress, ahead=ahead > 0) as shop:
            chance = shop.chance
            possible, smallest = measure_possible(shop)
            _report(possible, smallest, progress)
            budgets = [settle(want.config.budget(), possible) for want in wanted]
            answers = _impossible(budgets, possible, shop)
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
                    shop, method, want.config, possible, smallest,
                    episodes=_episodes(config, want, prepared), seed=config.seed, ahead=ahead, keep=store.add,
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
            guessing = sum(trial.accuracy <= chance for trial in trials)
            if guessing:
                progress.say(
                    f"{guessing} of {len(trials)} trials are not told from guessing ({config.metric} up to "
                    f"{100 * chance:.1f} %): they rank last"
                )
            searched: list[Searched | BudgetError] = []
            for want, budget, impossible in zip(wanted, budgets, answers, strict=True):
                if impossible is not None:
                    searched.append(impossible)
                    continue
                ranked = rank(trials, budget, possible.reference, chance)
                if not (stopped or want.done):
                    try:
                        ranked = confirm_best(shop, trials, budget, possible.reference, config.finalists)
                    except StopSearch as stop:
                        stopped = str(stop)
                        progress.say(f"the best trials are not measured again: {stop}")
                # Where the device was lost before its turn came it has what the others found.
                found = ways.get(want.name, last)
                summary = _summary(shop, found, stopped)
                if found.frontier is not None:
                    summary["cost_model"] = _say_fit(found.frontier, progress)
                summary |= {"chance_level": chance, "at_chance": guessing}
                searched.append(Searched(ranked, budget, possible, shop.criterion, summary, chance, shop.images))
    except StopSearch as stop:
        raise DeviceError(str(stop), f"when it is back, continue with --resume {config.name}") from stop
    finally:
        store.close()
    return searched


@contextmanager
def workshop(
    config: RunConfig,
    prepared: Prepared,
    folder: RunFolder,
    session: Session,
    settings: MeasureSettings,
    store: TrialStore,
    progress: Progress,
    *,
    ahead: bool,
) -> Iterator[Workshop]:
    """Rank the channels, export the unpruned network, and be ready to evaluate plans; see `Evaluator` for `ahead`.

    Scores are kept in `store`, costs in the cache of `config.runs_dir`. Raises DeviceError where the device is gone.
    """
    progress.say(f"criterion: {config.criterion}")
    criterion = criterion_of(config, prepared, prepared.network, prepared.structure, progress)
    kind = FORMAT[settings.runtime]
    scoring = _scoring(config, prepared, criterion)
    labels = prepared.validation.y[: scoring.images].numpy()
    work = folder / CANDIDATES
    try:
        work.mkdir(exist_ok=True)
        files = FileMaker(prepared, criterion, kind, work, progress)
        # It stays in the run folder: what ships is compared with it at the end.
        baseline_file = folder / f"baseline.{kind}"
        example = prepared.validation.inputs(slice(0, 2))
        EXPORTERS[kind](prepared.network, example, baseline_file, metadata(config, prepared, None))
        with (
            MeasurementCache(config.runs_dir / ".cache" / "measurements.sqlite", progress.say) as cache,
            LoopProfiler(session, settings, baseline_file, log=folder.log, say=progress.say) as profiler,
            Evaluator(
                config, prepared, criterion, scoring, files, profiler, cache, store, sha256_file(baseline_file),
                settings, progress, ahead=ahead,
            ) as evaluator,
        ):  # fmt: skip
            yield Workshop(
                config, prepared, criterion, scoring, files, evaluator, profiler, session, settings, baseline_file,
                chance_level(config.metric, labels), telling_images(config.metric, labels), progress,
            )  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)


def seek(
    shop: Workshop,
    method: Method,
    config: RunConfig,
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
    """One search for the budget of `config`, after those that had `earlier` episodes and left `costs`.

    `keep` hears of each trial before the search does. `possible` and `smallest` as `measure_possible` gives them.
    """
    structure, evaluator, progress = shop.prepared.structure, shop.evaluator, shop.progress
    groups, asked = structure.groups, config.budget()
    budget = settle(asked, possible)
    credit = config.credit or (method.credit if len(groups) <= STEP_CREDIT_UP_TO else "episode")
    original = structure.neurons(shop.prepared.network)
    limits = limits_of(asked, possible.reference)
    accuracy = shop.prepared.validation_accuracy
    reward = make_reward(config, budget, limits, possible, accuracy, paper=not method.bound)
    frontier = None
    measured: list[PruningPlan] = []
    if limits and method.bound:
        if costs is None:
            costs = Costs(groups, LayerShares(shop.prepared.network, structure), int(possible.reference.bytes))
            if isinstance(smallest.cost, Measurement):
                costs.learn(smallest.plan.widths, smallest.cost)
        frontier = Frontier(groups, limits, costs, lambda w: original / neurons_left(groups, original, w))
        measured = _learn_costs(frontier, structure, evaluator, progress)
    environment = Environment(
        groups,
        evaluator,
        reward,
        neurons=original,
        min_ncr=budget.min_ncr if method.bound else None,
        credit=credit,
        states=method.states(groups, shop.criterion.ranking.lost),
        frontier=frontier,
        # With credit for every step the others are not this one's walks.
        earlier=earlier if credit == "episode" else (),
    )
    started, laps = time.monotonic(), Laps()
    trials: list[Trial] = []
    found: list[Episode] = []
    with progress.task(title, episodes) as task:
        record = _recorder(trials, found, len(earlier), keep, task.advance)
        searching = timed(method.search(environment, episodes=episodes, seed=seed), laps)
        result = drive(searching, environment, ahead=ahead, on_episode=record)
    seconds, agents = time.monotonic() - started, laps.seconds.get("agent", 0.0)
    return Sought(trials, found, result, reward, credit, frontier, measured, seconds, agents)


def _impossible(budgets: Sequence[Budget], possible: Possible, shop: Workshop) -> list[BudgetError | None]:
    """Of each budget why it cannot be met, or None. Raises BudgetError where none can be met."""

    def answers(possible: Possible) -> list[BudgetError | None]:
        found: list[BudgetError | None] = []
        for budget in budgets:
            try:
                check_possible(budget, possible, shop.config.device, shop.prepared.structure)
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


def _episodes(config: RunConfig, want: Wanted, prepared: Prepared) -> int:
    """How many plans are tried for a bound: its share, fewer of them where a plan costs more and nobody said."""
    few = config.episodes is None and convolutional(prepared.network)
    return -(-want.episodes // CONVOLVED_PART) if few else want.episodes


def _scoring(config: RunConfig, prepared: Prepared, criterion: Criterion) -> Scoring:
    images, steps = config.search_images, config.search_steps
    if convolutional(prepared.network):
        part = _part(prepared)
        images = images or round(CONVOLVED_IMAGES * part)
        steps = round(CONVOLVED_STEPS * part) if steps is None else steps
    steps = 150 if steps is None else steps
    tuning = None
    if steps:
        tuning = BriefTuning(
            prepared.train,
            prepared.network,
            steps=steps,
            learning_rate=prepared.schedule.learning_rate,
            seed=config.seed,
            place=prepared.place,
        )
    return Scoring(
        prepared.network,
        prepared.structure,
        criterion,
        prepared.train,
        prepared.validation,
        tuning,
        images,
        config.metric,
        prepared.place,
    )


def _part(prepared: Prepared) -> float:
    """Less is done where everything costs more: as the root of it, since the first steps and images tell most."""
    macs = sum(cost.macs for cost in prepared.structure.costs.values())
    return min(max(math.sqrt(CONVOLVED_MACS / max(macs, 1)), LEAST_PART), 1.0)


def limits_of(asked: Budget, reference: Reference) -> Limits:
    """What the user bounded, as shares of the unpruned network's."""

    def share(bound: Bound | None, whole: float) -> float | None:
        return None if bound is None else bound.limit(whole) / whole

    return Limits(
        latency=share(asked.max_latency, reference.latency),
        memory=share(asked.max_memory, reference.memory),
        bytes=share(asked.max_bytes, reference.bytes),
        ncr=asked.min_ncr,
    )


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
    with progress.task("measuring what widths cost", 2 + 2 * len(groups)) as task:

        def learn(widths: dict[str, int]) -> None:
            plan = evaluator.plan(widths)
            measured.append(plan)
            cost = evaluator.cost(plan)
            if isinstance(cost, Measurement):
                frontier.costs.learn(widths, cost)
            task.advance()

        alike = [0.5 * group.channels for group in groups]
        for _ in range(2):
            learn(frontier.fit(alike))
        base = frontier.fit(alike)
        for group in groups:
            for width in (group.floor, group.channels):
                learn({**base, group.name: width})
    return measured


def _say_fit(frontier: Frontier, progress: Progress) -> dict[str, Any]:
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
        found[name] = to_json(fit)
        progress.say(
            f"{name} of {fit.measured} plans, each predicted from the others: off by {100 * fit.median_error:.1f} % "
            f"(median), {100 * fit.p90_error:.1f} % (90th percentile)"
        )
    return found


def settle(budget: Budget, possible: Possible) -> Budget:
    """The budget with its defaults: quality is always bounded; where nothing asks for less, a rate (NCR) does."""
    asks = (budget.max_latency, budget.max_memory, budget.max_bytes, budget.min_ncr)
    ncr = default_ncr(possible) if all(bound is None for bound in asks) else budget.min_ncr
    return replace(budget, min_ncr=ncr, max_drop=DEFAULT_DROP if budget.max_drop is None else budget.max_drop)


def default_ncr(possible: Possible) -> float:
    """3, or half-way to the most that is possible where that is less."""
    return min(DEFAULT_NCR, round(1 + (possible.ncr - 1) / 2, 2))


def kept_already(budget: Budget, possible: Possible) -> list[str]:
    """A line for every bound that the unpruned network keeps: it asks for nothing."""
    reference = possible.reference
    return [
        f"the unpruned network keeps --max-{name} as it is ({shown}): that bound asks for nothing"
        for name, bound, whole, shown in (
            ("latency", budget.max_latency, reference.latency, format_cost(reference.latency, possible.unit)),
            ("memory", budget.max_memory, reference.memory, format_bytes(reference.memory)),
            ("bytes", budget.max_bytes, reference.bytes, format_bytes(reference.bytes)),
        )
        if bound is not None and bound.limit(whole) >= whole
    ]


def check_possible(budget: Budget, possible: Possible, device: str, structure: Structure) -> None:
    """Raises BudgetError, with what is possible at best, where even the narrowest allowed network breaks a bound.

    The hint is about `structure`'s layers that stay where they are the reason.
    """
    reference = possible.reference

    def hint(measure: Measure, share: float) -> str:
        return because_of(structure, measure, share) or "ask for less, or allow more with --max-sparsity"

    if budget.min_ncr is not None and possible.ncr < budget.min_ncr:
        raise BudgetError(
            f"a neuron compression rate of {budget.min_ncr:g} cannot be reached: {possible.ncr:.2f} is the most here",
            hint("neurons", 1 / possible.ncr),
        )
    for bound, share, whole, name, show in (
        (
            budget.max_latency,
            possible.latency_share,
            reference.latency,
            "latency",
            lambda v: format_cost(v, possible.unit),
        ),
        (budget.max_memory, possible.memory_share, reference.memory, "memory", format_bytes),
        (budget.max_bytes, possible.smallest_bytes / reference.bytes, reference.bytes, "file size", format_bytes),
    ):
        if bound is not None and share * whole > bound.limit(whole):
            raise BudgetError(
                f"{name} of {show(bound.limit(whole))} cannot be reached on {device}: the smallest allowed network has "
                f"{show(share * whole)}, the unpruned one {show(whole)}",
                hint("macs" if bound is budget.max_latency else "parameters", share),
            )


def measure_possible(shop: Workshop, *, fresh: bool = False) -> tuple[Possible, Candidate]:
    """What the narrowest network costs, and that network, scored. Raises DeviceError where it cannot be measured."""
    evaluator = shop.evaluator
    # From the cache where it holds them: the reward's aims hang on these figures, and with the same cached measurements
    # a seed must give the same trials. What ships is measured afresh at the end.
    smallest = evaluator.evaluate({group.name: group.floor for group in shop.prepared.structure.groups})
    cost = evaluator.cost(smallest.plan, fresh=True) if fresh else smallest.cost
    assert cost is not None
    if isinstance(cost, Failure):
        raise DeviceError(
            f"the smallest network could not be measured: {cost.message}",
            cost.advice or "check the device",
            retryable=cost.retryable,
        )
    reference = Reference(cost.against_median, cost.against_peak_bytes, shop.baseline_file.stat().st_size)
    return Possible(smallest.ncr, cost.quotient, cost.memory_quotient, reference, cost.bytes, cost.unit), smallest


def _report(possible: Possible, smallest: Candidate, progress: Progress) -> None:
    progress.say(
        f"unpruned on the device: {format_cost(possible.reference.latency, possible.unit)}, "
        f"{format_bytes(possible.reference.memory)} heap; "
        f"possible at best: {format_speedup(1 / possible.latency_share, possible.unit)}, NCR {possible.ncr:.2f} "
        f"(narrowest network, {100 * smallest.accuracy:.1f} % before fine-tuning)"
    )


def make_reward(
    config: RunConfig, budget: Budget, limits: Limits, possible: Possible, accuracy: float, *, paper: bool
) -> Reward | BoundedReward:
    """[ACNN] (3) with measured terms where nothing is bounded, or for the `paper`'s own agent; else quality in bounds.

    Expectations are what the user asks for; otherwise half-way between the unpruned and the narrowest network.
    """

    def aim(bound: Bound | None, share: float, reference: float) -> float:
        if bound is not None:
            return bound.limit(reference) / reference
        return 0.5 * (1.0 + min(share, 1.0))

    def weighed(otherwise: float) -> Reward:
        weights = {name: getattr(config, name) for name in ("beta", "gamma", "delta")}
        return Reward(
            accuracy=accuracy,
            ncr=budget.min_ncr or default_ncr(possible),
            latency=aim(budget.max_latency, possible.latency_share, reference.latency),
            memory=aim(budget.max_memory, possible.memory_share, reference.memory),
            **{name: otherwise if weight is None else weight for name, weight in weights.items()},
        )

    reference = possible.reference
    if paper or not limits:
        return weighed(1.0)
    extras = weighed(0.0)
    by_hand = extras.beta or extras.gamma or extras.delta
    return BoundedReward(accuracy, limits, int(reference.bytes), extras if by_hand else None)


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
        trial = Trial(
            first + index, found.plan, found.accuracy, found.ncr, found.cost, found.bytes, episode.reward, now - last,
            episode.proposed, episode.executed,
        )  # fmt: skip
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
    with progress.task("measuring the best again", None) as task:

        def again(trial: Trial) -> Measurement | Failure:
            cost = shop.evaluator.again(
                trial.plan,
                alike,
                lambda file: compare_fresh(session, alike, file, shop.baseline_file, memories=memories),
            )
            task.advance()
            if isinstance(cost, Measurement) and bound is not None:
                latency = latency_interval(cost, bound, reference.latency)
                low, value, high = (
                    f"{format_figure(figure)}x" if bound.relative else format_cost(figure, cost.unit)
                    for figure in (latency.low, latency.value, latency.high)
                )
                progress.say(f"trial {trial.index} in fresh processes: latency {value} ({low} to {high})")
            return cost

        return confirm(trials, wanted, budget, reference, shop.chance, shop.images, again)


def _summary(shop: Workshop, found: Sought, stopped: str) -> dict[str, Any]:
    config, evaluator = shop.config, shop.evaluator
    agent, result, own = None, found.result, found.trials
    if result.agent_sparsity is not None:
        agent = "ddpg" if config.method not in AGENTS or config.penalty == 0 else "proximal-ddpg"
    return {
        "method": config.method,
        "agent": agent,
        "credit": found.credit,
        "criterion": config.criterion,
        "episodes": result.episodes,
        "converged": result.converged,
        "stopped": stopped,
        "seconds": round(found.seconds, 2),
        "device_seconds": round(shop.profiler.device_seconds, 2),
        "measured": evaluator.measured,
        "cache_hits": evaluator.cache_hits,
        "failures": evaluator.failures,
        "candidates": shop.files.how,
        "agent_sparsity": None if result.agent_sparsity is None else round(result.agent_sparsity, 4),
        # Whether the agent got better than the random episodes it begins with is for everybody to see.
        "warm_up_episodes": result.warm_up,
        "mean_reward": {
            "warm_up": round(statistics.fmean(t.reward for t in own[: result.warm_up or 1]), 5),
            "last_quarter": round(statistics.fmean(t.reward for t in own[-max(1, len(own) // 4) :]), 5),
        },
        "losses": [[round(c, 6), round(a, 6)] for c, a in result.losses],
        "reward": to_json(found.reward),
    }

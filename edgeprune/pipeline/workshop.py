"""What makes, scores and measures the networks of plans, set up once for one search or many."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RUNTIMES, Precision
from edgeprune.core.session import Session
from edgeprune.core.store import CANDIDATES, RunFolder, TrialStore
from edgeprune.core.trial import Candidate
from edgeprune.exporters import EXPORTERS
from edgeprune.pipeline.candidates import FileMaker, RunIdentity
from edgeprune.pipeline.criterion import criterion_of
from edgeprune.pipeline.evaluator import Evaluator
from edgeprune.pipeline.export import metadata
from edgeprune.pipeline.metering import KnownCosts, Meter
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.search import Possible, Reference
from edgeprune.pipeline.scoring import Scoring
from edgeprune.profilers.cache import MeasurementCache
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.kinds import convolutional
from edgeprune.pruning.structure import Criterion
from edgeprune.search.frontier import narrow_plans
from edgeprune.search.states import Losses
from edgeprune.training.brief import BriefTuning
from edgeprune.training.sensitivity import IMAGES, divergences


@dataclass(frozen=True, slots=True)
class Workshop:
    """What makes, scores and measures networks of plans: one network on one device, for one search or many."""

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
    #: What is lost with each width of each group, for searches that look at it.
    losses: Callable[[], Losses]
    #: The score up to which a plan is not told from guessing, and how many images a score is worth.
    chance: float
    images: float
    progress: Progress

    @property
    def precision(self) -> Precision:
        """Of the files of its candidates."""
        return self.evaluator.precision

    def at(self, precision: Precision, lost: float) -> Workshop:
        """The same, with candidates of another precision, which costs so much of the score."""
        return replace(self, evaluator=self.evaluator.at(precision, lost))


@contextmanager
def workshop(
    prepared: Prepared,
    run: RunIdentity,
    folder: RunFolder,
    session: Session,
    settings: MeasureSettings,
    store: TrialStore,
    progress: Progress,
    *,
    ahead: bool,
) -> Iterator[Workshop]:
    """Rank the channels, export the unpruned network, and be ready to evaluate plans; see `Meter` for `ahead`.

    Scores are kept in `store`, costs in the cache of `run.runs_dir`. Raises DeviceError where the device is gone.
    """
    progress.say(f"criterion: {prepared.settled.ranking.criterion}")
    criterion = criterion_of(prepared, prepared.network, prepared.structure, progress)
    kind = RUNTIMES[settings.runtime].format.name
    scoring = _scoring(prepared, criterion)
    metric = prepared.task.metric
    targets = prepared.validation.y[: scoring.images].numpy()
    work = folder / CANDIDATES
    try:
        work.mkdir(exist_ok=True)
        files = FileMaker(prepared, criterion, kind, work, progress)
        # It stays in the run folder: what ships is compared with it at the end.
        baseline_file = folder / f"baseline.{kind}"
        example = prepared.validation.inputs(slice(0, 2))
        EXPORTERS[kind].export(prepared.network, example, baseline_file, metadata(prepared, None))
        with (
            MeasurementCache(run.runs_dir / ".cache" / "measurements.sqlite", progress.say) as kept,
            LoopProfiler(session, settings, baseline_file, log=folder.log, say=progress.say) as profiler,
            Meter(
                run, prepared, files, profiler, KnownCosts(kept, run, sha256_file(baseline_file), settings), progress,
                ahead=ahead,
            ) as meter,
        ):  # fmt: skip
            evaluator = Evaluator(criterion, scoring, meter, store, prepared.shipped.precisions[0])
            yield Workshop(
                prepared, criterion, scoring, files, evaluator, profiler, session, settings, baseline_file,
                cache(partial(_losses, prepared, criterion, progress)),
                metric.chance(targets), metric.images(targets), progress,
            )  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Narrowest:
    """The narrowest network there is, scored and measured, and what is possible at best.

    `others` are the narrowest whose layers have whole blocks of channels, measured: one of them may be faster.
    """

    candidate: Candidate
    possible: Possible
    others: tuple[tuple[PruningPlan, Measurement], ...] = ()


def measure_narrowest(shop: Workshop, *, fresh: bool = False) -> Narrowest:
    """Score and measure it; `fresh`: not from the cache. Raises DeviceError where it cannot be measured."""
    evaluator = shop.evaluator
    # From the cache where it holds them: the reward's aims hang on these figures, and with the same cached measurements
    # a seed must give the same trials. What ships is measured afresh at the end.
    smallest = evaluator.evaluate({group.name: group.least for group in shop.prepared.structure.groups})
    cost = evaluator.cost(smallest.plan, fresh=True) if fresh else smallest.cost
    assert cost is not None
    if isinstance(cost, Failure):
        raise DeviceError(
            f"the smallest network could not be measured: {cost.message}",
            cost.advice or "check the device",
            retryable=cost.retryable,
        )
    others = []
    for widths in narrow_plans(shop.prepared.structure.groups)[1:]:
        plan = evaluator.plan(widths)
        other = evaluator.cost(plan, fresh=fresh)
        if isinstance(other, Measurement):
            others.append((plan, other))
    fastest = min((cost, *(each for _, each in others)), key=lambda each: each.quotient)
    reference = Reference(cost.against_median, cost.against_peak_bytes, shop.baseline_file.stat().st_size)
    possible = Possible(smallest.ncr, fastest.quotient, cost.memory_quotient, reference, cost.bytes, cost.unit)
    return Narrowest(smallest, possible, tuple(others))


def _losses(prepared: Prepared, criterion: Ranked, progress: Progress) -> Losses:
    """Dense candidates are cut far deeper, and tuned for long: divergences before that were not tried for them."""
    if not convolutional(prepared.network):
        return Losses(criterion.ranking.errors())
    images = round(IMAGES * prepared.settled.scoring.part)
    found = divergences(criterion, prepared.structure, prepared.train, prepared.place, progress, images, prepared.task)
    return Losses(found, additive=True)


def _scoring(prepared: Prepared, criterion: Criterion) -> Scoring:
    settled = prepared.settled
    settings, tuning = settled.scoring, None
    if settings.steps:
        tuning = BriefTuning(
            prepared.train,
            prepared.network,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            seed=settled.seed,
            place=prepared.place,
            task=prepared.task,
        )
    return Scoring(
        prepared.network, prepared.structure, criterion, prepared.problem, tuning, settings.images, prepared.place
    )

"""One candidate, one direction: widths to plan, plan to network, network to score, to file, to measured cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from torch import nn

from edgeprune.core.clock import Laps
from edgeprune.core.design import Design, PruningPlan
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.runtimes import Precision
from edgeprune.core.store import TrialStore
from edgeprune.core.trial import Candidate
from edgeprune.pipeline.metering import Later, Meter
from edgeprune.pipeline.scoring import Scoring
from edgeprune.pruning.structure import Criterion
from edgeprune.search.environment import Underway
from edgeprune.search.space import Widths


class Evaluator:
    """`evaluate` of the search: score on the host, cost from the device, both remembered.

    Files are of one `precision`; `lost` is the score that it costs, by which every candidate's is lower.
    """

    def __init__(
        self,
        criterion: Criterion,
        scoring: Scoring,
        meter: Meter,
        store: TrialStore,
        precision: Precision = "fp32",
        lost: float = 0.0,
    ) -> None:
        self._criterion, self._scoring, self._meter, self._store = criterion, scoring, meter, store
        self.precision, self._lost = precision, lost
        self._known: dict[str, Candidate] = {}
        # What failed before a resume is not tried again: another outcome would lead the search elsewhere.
        tried = [trial.candidate for trial in store.trials()]
        self._failed = {each.design.key: each.cost for each in tried if isinstance(each.cost, Failure)}

    def at(self, precision: Precision, lost: float) -> Evaluator:
        """The same of files of another precision, which costs so much of the score."""
        return Evaluator(self._criterion, self._scoring, self._meter, self._store, precision, lost)

    def __call__(self, widths: Widths) -> Candidate | Underway:
        """Score and cost of the network with these widths; groups not named stay whole."""
        plan = self.plan(widths)
        if plan.key in self._known:
            self._meter.cache_hits += 1
            return self._known[plan.key]
        pruned: nn.Module | None = None
        remembered = self._store.recall(plan.key)
        if remembered is None:
            with self.spent[plan.key]("narrowing"):
                pruned = self._scoring.network(plan)
            with self.spent[plan.key]("scoring"):
                remembered = self._scoring(pruned)
            self._store.remember(plan.key, *remembered)
        accuracy, ncr = remembered
        design = Design(plan, self.precision)
        cost = self._failed.get(design.key)
        begun = self._meter.begin(design, pruned) if cost is None else Later(lambda: cost)

        def finish() -> Candidate:
            cost = begun.result()
            size = cost.bytes if isinstance(cost, Measurement) else 0
            found = Candidate(plan, max(0.0, accuracy - self._lost), ncr, cost, size, self.precision)
            return self._known.setdefault(plan.key, found)

        return Later(finish)

    def evaluate(self, widths: Widths) -> Candidate:
        """`self(widths)`, waited for."""
        found = self(widths)
        return found if isinstance(found, Candidate) else found.result()

    def plan(self, widths: Widths) -> PruningPlan:
        """The plan of these widths."""
        return self._criterion.plan(dict(widths))

    def cost(self, plan: PruningPlan, *, fresh: bool = False) -> Measurement | Failure:
        """Measured cost of a plan's widths, from the cache unless `fresh`."""
        return self._meter.begin(Design(plan, self.precision), fresh=fresh).result()

    def again(
        self, plan: PruningPlan, settings: MeasureSettings, race: Callable[[Path], Measurement | Failure]
    ) -> Measurement | Failure:
        """Cost of a plan as `race` measures its file with `settings`; kept for a resume of this run, not for others."""
        return self._meter.again(Design(plan, self.precision), settings, race)

    @property
    def spent(self) -> defaultdict[str, Laps]:
        """Seconds that each plan took, by its key: narrowing, scoring, file, device, and again (in fresh processes)."""
        return self._meter.spent

    @property
    def cache_hits(self) -> int:
        """How often what was asked for was known."""
        return self._meter.cache_hits

    @property
    def measured(self) -> int:
        """Files that were measured."""
        return self._meter.measured

    @property
    def failures(self) -> int:
        """Files whose measurement failed."""
        return self._meter.failures

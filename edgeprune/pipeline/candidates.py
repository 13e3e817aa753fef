"""One candidate, one direction: widths to plan, plan to network, network to accuracy, to file, to measured cost."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Generic, Literal, TypeVar

from torch import nn

from edgeprune.core.clock import Laps
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import write_bytes
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import Format
from edgeprune.core.store import TrialStore
from edgeprune.core.trial import Candidate
from edgeprune.exporters import EXPORTERS
from edgeprune.exporters.codes import TemplateError
from edgeprune.exporters.template import Template
from edgeprune.pipeline.config import LossPolicy
from edgeprune.pipeline.export import metadata
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.scoring import Scoring
from edgeprune.profilers.cache import MeasurementCache
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.pruning.structure import INPUTS, Criterion
from edgeprune.pruning.surgery import cut, prune
from edgeprune.search.environment import StopSearch, Underway, Widths

T = TypeVar("T")


class FileMaker:
    """Candidate files: the exported template sliced in milliseconds, or a real export where that cannot be done.

    `how` says which ("sliced" or "exported"); the result carries it.
    """

    def __init__(
        self, prepared: Prepared, criterion: Criterion, kind: Format, folder: Path, progress: Progress
    ) -> None:
        self._prepared = prepared
        self._kind: Format = kind
        self._folder = folder
        self._example = prepared.validation.inputs(slice(0, 2))
        self._template: Template | None = None
        self._progress = progress
        self.how: Literal["sliced", "exported"] = "sliced"
        self._made = 0
        structure = prepared.structure
        gathers = any(group.name == INPUTS for group in structure.groups)
        try:
            input_layer = structure.input_layer if gathers else None
            self._template = Template.build(prepared.network, self._example, kind, input_layer=input_layer)
            # The narrowest candidate and one of odd widths stand for all: both must compute what their networks do.
            for share in (0.0, 0.55):
                widths = {group.name: group.snap(share * group.channels) for group in structure.groups}
                plan = criterion.plan(widths)
                self._slice(prune(criterion, structure, plan), plan, check=True)
        except TemplateError as error:
            self._give_up(error)

    def make(self, pruned: nn.Module, plan: PruningPlan) -> Path:
        """Write the candidate's file, under a name of its own, and return its path."""
        self._made += 1
        path = self._folder / f"candidate-{self._made}.{self._kind}"
        if self._template is not None:
            try:
                write_bytes(path, self._slice(pruned, plan))
                return path
            except TemplateError as error:
                self._give_up(error)
        EXPORTERS[self._kind].export(pruned, self._example, path, {})
        return path

    def _give_up(self, error: TemplateError) -> None:
        self._template, self.how = None, "exported"
        self._progress.say(f"every candidate is exported for itself, which is slower: {error.message}")

    def _slice(self, pruned: nn.Module, plan: PruningPlan, *, check: bool = False) -> bytes:
        assert self._template is not None
        coded = cut(self._template.coded_network(), self._prepared.structure.shape, plan)
        return self._template.slice(coded, pruned, self._example if check else None)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which run this is, and what it does where its `device` is lost (`--on-device-loss`)."""

    name: str
    runs_dir: Path
    device: str
    on_loss: LossPolicy = "stop"


def needed(cost: Measurement | Failure, device: str) -> Measurement:
    """A cost without which nothing goes on. Raises DeviceError where it is a failure."""
    if isinstance(cost, Failure):
        advice = cost.advice or "check the device"
        raise DeviceError(f"a file could not be measured on {device}: {cost.message}", advice, retryable=cost.retryable)
    return cost


class Evaluator:
    """`evaluate` of the search: score on the host, cost from the device, both remembered. A context manager.

    With `ahead` the device measures on a thread of its own, so that the host may go on to the next candidate meanwhile;
    stores are only touched by the thread that calls.
    """

    def __init__(
        self,
        run: RunIdentity,
        prepared: Prepared,
        criterion: Criterion,
        scoring: Scoring,
        files: FileMaker,
        profiler: LoopProfiler,
        cache: MeasurementCache,
        store: TrialStore,
        network_id: str,
        settings: MeasureSettings,
        progress: Progress,
        *,
        ahead: bool,
    ) -> None:
        self._run = run
        self._progress = progress
        self._prepared = prepared
        self._criterion = criterion
        self._network_id = network_id
        self._files = files
        self._profiler = profiler
        self._cache = cache
        self._store = store
        self._settings = to_json(settings)
        self._scoring = scoring
        self._known: dict[str, Candidate] = {}
        # What failed before a resume is not tried again: another outcome would lead the search elsewhere.
        tried = [trial.candidate for trial in store.trials()]
        self._failed = {each.plan.key: each.cost for each in tried if isinstance(each.cost, Failure)}
        self._device = ThreadPoolExecutor(1, "device") if ahead else None
        self._closing = threading.Event()
        self._lost: DeviceError | StopSearch | None = None
        self.cache_hits = 0
        self.measured = 0
        self.failures = 0
        #: Seconds that each plan took, by its key: narrowing, scoring, file, device, and again (in fresh processes).
        self.spent: defaultdict[str, Laps] = defaultdict(Laps)

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        if self._device is not None:
            # What is being measured when the search ends early is not waited for.
            if error is not None:
                self._profiler.abandon()
            self._device.shutdown(cancel_futures=True)

    def __call__(self, widths: Widths) -> Candidate | Underway:
        """Score and cost of the network with these widths; groups not named stay whole."""
        plan = self.plan(widths)
        if plan.key in self._known:
            self.cache_hits += 1
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
        cost = self._failed.get(plan.key)
        begun = self._begin(plan, pruned) if cost is None else _Later(lambda: cost)

        def finish() -> Candidate:
            cost = begun.result()
            size = cost.bytes if isinstance(cost, Measurement) else 0
            return self._known.setdefault(plan.key, Candidate(plan, accuracy, ncr, cost, size))

        return _Later(finish)

    def evaluate(self, widths: Widths) -> Candidate:
        """`self(widths)`, waited for."""
        found = self(widths)
        return found if isinstance(found, Candidate) else found.result()

    def plan(self, widths: Widths) -> PruningPlan:
        """The plan of these widths."""
        return self._criterion.plan(dict(widths))

    def cost(self, plan: PruningPlan, *, fresh: bool = False) -> Measurement | Failure:
        """Measured cost of a plan's widths, from the cache unless `fresh`."""
        return self._begin(plan, None, fresh=fresh).result()

    def _begin(
        self, plan: PruningPlan, pruned: nn.Module | None, *, fresh: bool = False
    ) -> _Later[Measurement | Failure]:
        key = self._key(plan)
        # Disturbed figures are for the resume of this run, not for other runs.
        own = self._own(key)
        found = None if fresh else self._cache.get(own) or self._cache.get(key)
        if found is not None:
            self.cache_hits += 1
            return _Later(lambda: found)
        laps = self.spent[plan.key]
        with laps("file"):
            path = self._file(plan, pruned)

        def measure() -> Measurement | Failure:
            with laps("device"):
                return self._patiently(path, self._profiler.measure)

        def keep(cost: Measurement | Failure) -> Measurement | Failure:
            cost = self._counted(plan, path, cost)
            if isinstance(cost, Measurement) and not fresh:
                # A second look must not change what a resumed search sees at the first.
                self._cache.put(own if cost.verdict else key, cost)
            return cost

        future: Future[Measurement | Failure] = Future()
        if self._device is not None:
            future = self._device.submit(measure)
        else:
            future.set_result(measure())
        return _Later(lambda: keep(future.result()))

    def again(
        self, plan: PruningPlan, settings: MeasureSettings, race: Callable[[Path], Measurement | Failure]
    ) -> Measurement | Failure:
        """Cost of a plan as `race` measures its file with `settings`; kept for a resume of this run, not for others."""
        key = f"{self._own(self._key(plan))} {json.dumps(to_json(settings), sort_keys=True)}"
        found = self._cache.get(key)
        if found is not None:
            self.cache_hits += 1
            return found
        # Another process races on the device now, and two would disturb each other.
        self._profiler.close()
        path = self._file(plan, None)
        with self.spent[plan.key]("again"):
            raced = self._patiently(path, race)
        cost = self._counted(plan, path, raced)
        if isinstance(cost, Measurement):
            self._cache.put(key, cost)
        return cost

    def _file(self, plan: PruningPlan, pruned: nn.Module | None) -> Path:
        # What the weights are does not change the cost.
        return self._files.make(pruned or prune(self._criterion, self._prepared.structure, plan), plan)

    def _counted(self, plan: PruningPlan, path: Path, cost: Measurement | Failure) -> Measurement | Failure:
        """What was found out of a file, which is no longer needed, with its size."""
        if isinstance(cost, Failure):
            self.failures += 1
        else:
            self.measured += 1
            # Candidates carry no metadata, what ships does: it counts for a bound on the file.
            extra = len(json.dumps(metadata(self._prepared, plan)))
            cost = replace(cost, bytes=path.stat().st_size + extra)
        path.unlink()
        return cost

    def _patiently(self, path: Path, race: Callable[[Path], Measurement | Failure]) -> Measurement | Failure:
        """Raises DeviceError or StopSearch, as --on-device-loss says, where the device is gone: without it the next
        candidates would only fail as well, and teach the agent nonsense.
        """
        told = False
        while True:
            # One candidate was lost, the next is not waited for as well.
            if self._lost is not None:
                raise self._lost
            cost = race(path)
            if isinstance(cost, Measurement) or cost.kind not in ("lost", "busy") or self._closing.is_set():
                return cost
            policy, name = self._run.on_loss, self._run.device
            if policy == "stop":
                hint = f"when it is back, continue with --resume {self._run.name}"
                self._lost = DeviceError(f"{name} is {cost.kind}: {cost.message}", hint)
                continue
            if policy == "continue":
                self._lost = StopSearch(f"{name} is {cost.kind}: {cost.message}")
                continue
            if not told:
                self._progress.say(f"{name} is {cost.kind}; waiting for it (Ctrl-C keeps the run): {cost.message}")
            told = True

    def _own(self, key: str) -> str:
        """The key of a figure that is for this run alone."""
        return f"{key} {self._run.runs_dir.resolve()} {self._run.name}"

    def _key(self, plan: PruningPlan) -> str:
        """The unpruned file, widths, runtime, settings and device: whatever else a cost depends on is noise."""
        facts: Mapping[str, object] = self._profiler.runtime_facts()
        parts = [
            self._network_id,
            sorted(plan.widths.items()),
            self._settings,
            sorted(facts.items()),
            self._files.how,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Later(Generic[T]):
    """Something that the device may still be finding out; `finish` waits for it, on the thread that asks."""

    finish: Callable[[], T]

    def result(self) -> T:
        return self.finish()

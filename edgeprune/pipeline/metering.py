"""What plans cost on the device: from the cache where it holds that, else measured."""

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
from typing import Generic, TypeVar

from torch import nn

from edgeprune.core.clock import Laps
from edgeprune.core.design import Design, PruningPlan
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.pipeline.candidates import FileMaker, RunIdentity
from edgeprune.pipeline.export import metadata
from edgeprune.pipeline.prepare import Prepared
from edgeprune.profilers.cache import MeasurementCache
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.search.environment import StopSearch

T = TypeVar("T")


class KnownCosts:
    """The costs in the cache: of one unpruned network, by the hash of its file, measured with `settings`."""

    def __init__(self, cache: MeasurementCache, run: RunIdentity, network: str, settings: MeasureSettings) -> None:
        self._cache, self._run, self._network, self._settings = cache, run, network, to_json(settings)

    def key(self, plan: PruningPlan, facts: Mapping[str, object], how: str) -> str:
        """The unpruned file, widths, runtime, settings and device: whatever else a cost depends on is noise."""
        parts = [self._network, sorted(plan.widths.items()), self._settings, sorted(facts.items()), how]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def find(self, key: str) -> Measurement | None:
        """What this run keeps under a key, or what all do."""
        return self._cache.get(self._own(key)) or self._cache.get(key)

    def keep(self, key: str, cost: Measurement) -> None:
        """Keep it, for other runs as well unless it was disturbed: that is for the resume of this run."""
        self._cache.put(self._own(key) if cost.verdict else key, cost)

    def find_again(self, key: str, settings: MeasureSettings) -> Measurement | None:
        """What this run measured with other settings."""
        return self._cache.get(self._again(key, settings))

    def keep_again(self, key: str, settings: MeasureSettings, cost: Measurement) -> None:
        """Keep that, for this run alone."""
        self._cache.put(self._again(key, settings), cost)

    def _own(self, key: str) -> str:
        """The key of a figure that is for this run alone."""
        return f"{key} {self._run.runs_dir.resolve()} {self._run.name}"

    def _again(self, key: str, settings: MeasureSettings) -> str:
        return f"{self._own(key)} {json.dumps(to_json(settings), sort_keys=True)}"


class Meter:
    """Costs of plans on one device. A context manager.

    With `ahead` the device measures on a thread of its own, so that the host may go on to the next candidate meanwhile;
    what is known is only touched by the thread that calls.
    """

    def __init__(
        self,
        run: RunIdentity,
        prepared: Prepared,
        files: FileMaker,
        profiler: LoopProfiler,
        known: KnownCosts,
        progress: Progress,
        *,
        ahead: bool,
    ) -> None:
        self._run, self._prepared, self._progress = run, prepared, progress
        self._files, self._profiler, self._known = files, profiler, known
        self._device = ThreadPoolExecutor(1, "device") if ahead else None
        self._closing = threading.Event()
        self._lost: DeviceError | StopSearch | None = None
        self.cache_hits = 0
        self.measured = 0
        self.failures = 0
        #: Seconds that each design took, by its key: file, device, and again (in fresh processes).
        self.spent: defaultdict[str, Laps] = defaultdict(Laps)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        if self._device is not None:
            # What is being measured when the search ends early is not waited for.
            if error is not None:
                self._profiler.abandon()
            self._device.shutdown(cancel_futures=True)

    def begin(
        self, design: Design, pruned: nn.Module | None = None, *, fresh: bool = False
    ) -> Later[Measurement | Failure]:
        """Begin to measure a design's widths, unless the cache holds them and `fresh` is not asked for.

        `pruned`: the network of its plan, where it is there already.
        """
        plan, key = design.plan, self._key(design)
        found = None if fresh else self._known.find(key)
        if found is not None:
            self.cache_hits += 1
            return Later(lambda: found)
        laps = self.spent[design.key]
        with laps("file"):
            path = self._files.make(pruned, plan, design.precision)

        def measure() -> Measurement | Failure:
            with laps("device"):
                return self._patiently(path, self._profiler.measure)

        def keep(cost: Measurement | Failure) -> Measurement | Failure:
            cost = self._counted(plan, path, cost)
            if isinstance(cost, Measurement) and not fresh:
                # A second look must not change what a resumed search sees at the first.
                self._known.keep(key, cost)
            return cost

        future: Future[Measurement | Failure] = Future()
        if self._device is not None:
            future = self._device.submit(measure)
        else:
            future.set_result(measure())
        return Later(lambda: keep(future.result()))

    def again(
        self, design: Design, settings: MeasureSettings, race: Callable[[Path], Measurement | Failure]
    ) -> Measurement | Failure:
        """Cost of a design as `race` measures its file with `settings`; kept for a resume of this run alone."""
        plan, key = design.plan, self._key(design)
        found = self._known.find_again(key, settings)
        if found is not None:
            self.cache_hits += 1
            return found
        # Another process races on the device now, and two would disturb each other.
        self._profiler.close()
        path = self._files.make(None, plan, design.precision)
        with self.spent[design.key]("again"):
            raced = self._patiently(path, race)
        cost = self._counted(plan, path, raced)
        if isinstance(cost, Measurement):
            self._known.keep_again(key, settings, cost)
        return cost

    def _key(self, design: Design) -> str:
        how = self._files.how if design.precision == "fp32" else f"{self._files.how} {design.precision}"
        return self._known.key(design.plan, self._profiler.runtime_facts(), how)

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


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
    """Something that the device may still be finding out; `finish` waits for it, on the thread that asks."""

    finish: Callable[[], T]

    def result(self) -> T:
        """What was found out, waiting for it."""
        return self.finish()

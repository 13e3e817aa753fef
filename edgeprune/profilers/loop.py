"""Many candidates, one living probe process with a warm runtime: how a search measures."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.session import Session
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, Pushed, push
from edgeprune.profilers.replies import Race
from edgeprune.profilers.retry import Patience, persist
from edgeprune.profilers.verdict import Taint, taint

T = TypeVar("T")

#: What a figure depends on: by these it is cached, and compared with others. Not memory or the kernel's release: a
#: reboot keeps the cache.
KEYS = (
    "device",
    "kind",
    "serial",
    "build",
    "machine",
    "cpu",
    "cores",
    "governor",
    "libc",
    "runtime",
    "runtime_version",
    "threads",
    "emulated",
    "packages",
    "qemu",
)
_MEMORY_READINGS = 2
#: Races at most, where the device is throttled or busy while they run, and the rest a hot one gets between them.
_RACES, _COOL_S = 3, 5.0
#: How long one candidate may be raced for, rests included: so many times as long as the quickest race so far, which
#: nothing much disturbed, but at least so many seconds. A race that has begun is never cut.
_AS_LONG, _LEAST_S = 3.0, 3.0
#: What a device gets where nobody says otherwise.
_PATIENCE = Patience(300.0)


class CalmRaces:
    """Races beside the baseline, run again where the device was throttled or busy, as long as a candidate may take."""

    def __init__(
        self,
        settings: MeasureSettings,
        log: Callable[[str], None],
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`log` is told of every race that is run again; `say` once that a figure had to be taken as it is."""
        self._settings = settings
        self._log, self._say = log, say
        self._clock, self._sleep = clock, sleep
        self._quickest_s = math.inf
        self._told = False

    def race(
        self, client: ProbeClient, candidate: Pushed, baseline: Pushed, deadline: Deadline
    ) -> tuple[Race, Taint | None, int]:
        """A race that nothing disturbed; or after so many that were, the last one, what was wrong with it, how many."""
        rejected, begun = 0, self._clock()
        while True:
            start = self._clock()
            race = client.race(candidate, baseline, deadline)
            took = self._clock() - start
            self._quickest_s = min(self._quickest_s, took)
            tainted = taint(race.states[0], race.states[-1], self._settings) if race.states else None
            limit = max(_LEAST_S, _AS_LONG * self._quickest_s)
            left = min(begun + limit - self._clock(), deadline.left() / 2)
            if tainted is None:
                return race, None, rejected
            if rejected == _RACES - 1 or left < took:
                if not self._told:
                    self._told = True
                    self._say(
                        f"measuring is disturbed ({tainted.verdict}): {tainted.advice}; until then a candidate is "
                        f"raced up to {_RACES} times, for {limit:.0f} s at most, and its figure taken as it is"
                    )
                return race, tainted, rejected
            rejected += 1
            self._log(f"{tainted.verdict}: {tainted.advice}; racing again")
            if tainted.verdict == "throttled":
                self._sleep(min(_COOL_S, left - took))


class LoopProfiler:
    """Measures candidates against one baseline. A context manager; the process starts with the first question.

    A probe that died, hung or garbled is replaced by a fresh one and the measurement tried once more; a device that is
    lost or busy is waited for (see `retry.persist`). A call takes at most three times `timeout_s` and once `away_s` of
    its patience.
    """

    def __init__(
        self,
        session: Session,
        settings: MeasureSettings,
        baseline: Path,
        warm_model: Path | None = None,
        log: Callable[[str], None] | None = None,
        *,
        say: Callable[[str], None] | None = None,
        patience: Patience = _PATIENCE,
        probe_file: Path = PROBE,
    ) -> None:
        """`warm_model` (None: the baseline) is loaded and dropped first: memory is read over a warmed-up runtime.

        `log` is told of every race and probe that is tried again; `say` once that a figure had to be taken as it is,
        since the device stayed throttled or busy.
        """
        self._session = session
        self._settings = replace(settings, processes=0)
        self._baseline_file = baseline
        self._warm_file = warm_model or baseline
        self._log = log or _nobody
        self._calm = CalmRaces(self._settings, self._log, say or _nobody)
        self._patience = patience
        self._probe_file = probe_file
        self._client: ProbeClient | None = None
        self._facts: Mapping[str, Any] | None = None
        self._baseline = Pushed("", "")
        self._baseline_bytes = 0
        self._spent_s = 0.0
        self._abandoned = False

    @property
    def device_seconds(self) -> float:
        """Seconds this profiler has kept the device busy."""
        return self._spent_s

    def facts(self) -> Mapping[str, Any]:
        """All facts of device and runtime. Raises DeviceError where the probe or the baseline does not run there."""
        if self._facts is None:
            self._attempt(self._open)
        return self._facts or {}

    def runtime_facts(self) -> dict[str, Any]:
        """The facts that figures depend on, for cache keys: the same each day on one set-up. Raises DeviceError."""
        facts = self.facts()
        return {**{key: facts.get(key) for key in KEYS}, "probe": sha256_file(self._probe_file)}

    def measure(self, candidate: Path) -> Measurement | Failure:
        """Cost of a model file beside the baseline's.

        Raises DeviceError when the set-up is broken: no runtime there, a baseline that does not run, or a probe that
        never once came up. Whatever comes about later is a Failure.
        """
        try:
            return self._attempt(lambda deadline: self._measure(candidate, deadline))
        except ChannelError as error:
            if self._facts is None:
                raise
            return error.failure()

    def abandon(self) -> None:
        """End the probe while another thread may be measuring: that ends soon, and nothing is measured any more."""
        self._abandoned = True
        self.close()

    def close(self) -> None:
        """End the probe; never raises."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> LoopProfiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, work: Callable[[Deadline], T]) -> T:
        """`work`, again with a fresh probe after a failure that may pass. Raises what the last try raised."""

        def again(error: ChannelError) -> None:
            self._log(f"{error.message}; measuring once more with a fresh probe")

        def timed(deadline: Deadline) -> T:
            if self._abandoned:
                raise ChannelError("lost", "nothing is measured any more", retryable=False)
            start = time.monotonic()
            try:
                return work(deadline)
            except ChannelError as error:
                if error.kind != "refused":  # after a refusal the probe is as good as before
                    self.close()
                raise
            finally:
                self._spent_s += time.monotonic() - start

        return persist(timed, self._patience, again=again)

    def _open(self, deadline: Deadline) -> ProbeClient:
        """The living probe. Raises DeviceError where the baseline cannot be run at all."""
        if self._client is not None:
            return self._client
        self._baseline = push(self._session, self._baseline_file)
        client = ProbeClient(self._session.start(self._probe_file), self._settings, self._session.spec.unit)
        try:
            facts = client.hello([push(self._session, self._warm_file)], deadline)
            readings = [client.memory(self._baseline, deadline)[0] for _ in range(_MEMORY_READINGS)]
        except BaseException as error:
            client.close()
            if isinstance(error, ChannelError) and error.kind == "refused":
                raise DeviceError(
                    f"the unpruned model does not run on {self._session.spec.name}: {error.message}",
                    error.hint,
                    retryable=False,
                ) from error
            raise
        self._baseline_bytes = min(readings)
        self._facts = MappingProxyType({**self._session.facts(), **facts})
        self._client = client
        return client

    def _measure(self, candidate: Path, deadline: Deadline) -> Measurement:
        client = self._open(deadline)
        pushed = push(self._session, candidate)
        try:
            # The smaller: a reading counts small blocks that the allocator keeps for itself, up to 1 % after a race.
            readings = [client.memory(pushed, deadline) for _ in range(_MEMORY_READINGS)]
            race, tainted, rejected = self._calm.race(client, pushed, self._baseline, deadline)
        finally:
            if pushed.path != self._baseline.path:
                # A device that is gone keeps the file; it goes when its cache is full.
                with contextlib.suppress(DeviceError):
                    self._session.remove(pushed.path)
        return Measurement(
            unit=client.unit,
            samples=race.samples,
            warmups=race.warmups,
            against=race.against,
            peak_bytes=min(held for held, _ in readings),
            against_peak_bytes=self._baseline_bytes,
            memory_method=readings[0][1],
            sha256=pushed.sha256,
            against_sha256=self._baseline.sha256,
            device=self._session.spec.name,
            facts=dict(self._facts or {}),
            settings=self._settings,
            process=(0,) * len(race.samples),
            load_s=race.load_s,
            first_s=race.first_s,
            states=race.states,
            verdict=tainted.verdict if tainted else "",
            advice=tainted.advice if tainted else "",
            rejected=rejected,
        )


def _nobody(text: str) -> None:
    """Nobody watches."""

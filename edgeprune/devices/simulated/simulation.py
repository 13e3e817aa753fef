"""What a simulated device answers: made up from a description, with noise, throttling and faults on demand.

    seed = 1
    [latency]                   # what a file costs; the first of these that knows it:
    recording = "result.json"   #   a run's result or a stored measurement: its samples again, in turns
    sha256 = { "0a1b…" = 1e-3 } #   seconds per file
    base_s = 1e-4               #   base_s + s_per_byte * bytes of the file
    s_per_byte = 2e-10
    noise = 0.02                # standard deviation of a sample, as a share (log-normal)
    drift = 0.001               # each measurement is so much slower than the one before, as a share
    [throttle]                  # after so many simulated seconds of work, and until then or for ever,
    after_s = 60.0              # everything takes `factor` times as long, and the states say so
    until_s = 90.0
    factor = 1.8
    [faults]                    # chance of each kind per operation that it can befall
    lost = 0.02                 # (push, start and request are operations, counted from 1)
    at = ["12: garbled", "40-60: lost", "90-: busy"]
    delay_s = 0.01              # real seconds that each operation takes longer

The same questions in the same order get the same answers, and faults do not change the figures of those measurements
that come about.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.files import sha256_file
from edgeprune.core.plain import from_json
from edgeprune.core.reading import Source
from edgeprune.devices.channel import ChannelError

Fault = Literal["lost", "timeout", "garbled", "killed", "full", "busy"]
Operation = Literal["push", "start", "request"]
Chance = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: What each fault can befall by chance; one that is asked for by number comes where it was asked for.
_BEFALLS: Mapping[Fault, tuple[Operation, ...]] = MappingProxyType(
    {
        "lost": ("push", "start", "request"),
        "timeout": ("push", "request"),
        "garbled": ("request",),
        "killed": ("request",),
        "full": ("push",),
        "busy": ("start",),
    }
)
_AT = re.compile(r"\s*([0-9]{1,9})(-([0-9]{1,9})?)?\s*:\s*([a-z]+)\s*")
_MAX_WARMUPS, _MAX_RUNS = 200, 20_000
#: Simulated seconds that asking for the state takes, so that waiting for a device to cool comes to an end.
_STATE_S = 1.0
_COOL_C, _HOT_C = 45.0, 85.0
_FREQUENCY_HZ, _CORES = 1_500_000_000, 4
#: Of a Raspberry Pi's flags: throttled now, and since it was started.
_THROTTLED_NOW, _THROTTLED_SINCE = 1 << 2, 1 << 18


class _Strict:
    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Latency(_Strict):
    """What a file costs, in simulated seconds."""

    base_s: NotNegative = 0.0
    s_per_byte: NotNegative = 0.0
    sha256: Mapping[str, Positive] = field(default_factory=dict)
    recording: str = ""
    noise: Chance = 0.0
    drift: Chance = 0.0


@dataclass(frozen=True, slots=True)
class Throttle(_Strict):
    """When it is slower, and by how much."""

    after_s: NotNegative
    factor: Annotated[float, Field(ge=1, le=1000)]
    until_s: Positive = math.inf


@dataclass(frozen=True, slots=True)
class Faults(_Strict):
    """What goes wrong."""

    lost: Chance = 0.0
    timeout: Chance = 0.0
    garbled: Chance = 0.0
    killed: Chance = 0.0
    full: Chance = 0.0
    busy: Chance = 0.0
    at: tuple[str, ...] = ()
    delay_s: NotNegative = 0.0


@dataclass(frozen=True, slots=True)
class Description(_Strict):
    """A simulated device as its file describes it."""

    latency: Latency
    seed: int = 0
    throttle: Throttle | None = None
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, slots=True)
class _Samples:
    sha256: str
    unit: Literal["s", "simulated s"]
    samples: Annotated[tuple[Positive, ...], Field(min_length=1)]


def read_description(path: Path) -> Description:
    """The description in a TOML file. Raises UsageError naming the file and what is wrong there."""
    hint = "check its address; docs/devices.md has an example"
    data = Source(path, UsageError, hint, "the simulated device").read_toml()
    try:
        description = from_json(Description, data)
    except ValidationError as error:
        raise _explained(error, path) from error
    _schedule(description.faults, path)
    return description


class Simulation:
    """The made-up device itself: its clock, what is due to go wrong, what things cost."""

    def __init__(self, path: Path) -> None:
        self._description = read_description(path)
        self._latency, self._faults = self._description.latency, self._description.faults
        self._scheduled = _schedule(self._faults, path)
        recording = path.parent / self._latency.recording if self._latency.recording else None
        self._recorded = _read_recording(recording) if recording else {}
        origin = sha256_file(path)[:12] + (f", {sha256_file(recording)[:12]}" if recording else "")
        #: `cpu` holds the hashes of what it was made from: costs are cached by it, and an edit must not find old ones.
        self.facts: Mapping[str, Any] = MappingProxyType(
            {
                "unit": "simulated s",
                "kind": "simulated",
                "cpu": f"simulated ({path.name} {origin})",
                "cores": _CORES,
                "governor": "performance",
            }
        )
        self.elapsed_s = 0.0
        self._opened_s = time.time()
        self._operations = 0
        self._measurements = 0
        self._measured: Counter[str] = Counter()

    def operate(self, operation: Operation, deadline: Deadline | None = None) -> None:
        """Count an operation, and raise the ChannelError that is due."""
        self._operations += 1
        left = math.inf if deadline is None else deadline.left()
        time.sleep(min(self._faults.delay_s, left))
        if self._faults.delay_s > left:
            raise ChannelError("timeout", f"the simulated device did not answer in time ({operation})")
        kind = self._due(operation)
        if kind is not None:
            raise ChannelError(kind, f"simulated fault at operation {self._operations} ({operation}): {kind}")

    def costs(self, file: Mapping[str, Any]) -> list[float]:
        """Undisturbed seconds of a file, to be given in turns; empty where nothing tells them."""
        sha256 = str(file["sha256"])
        if sha256 in self._recorded:
            return self._recorded[sha256]
        size = sum(os.path.getsize(each["path"]) for each in (file, *file.get("beside", {}).values()))
        formula = self._latency.base_s + self._latency.s_per_byte * size
        cost = self._latency.sha256.get(sha256, formula)
        return [cost] if cost > 0 else []

    def state(self) -> dict[str, Any]:
        """As the probe's `state`; its clock is the simulated one, and counts from when the session was opened."""
        throttle = self._description.throttle
        hot, since = self._slowdown() > 1, throttle is not None and self.elapsed_s >= throttle.after_s
        return {
            "wall_s": self._opened_s + self.elapsed_s,
            "mono_s": self.elapsed_s,
            "temperature_c": _HOT_C if hot else _COOL_C,
            "frequency_hz": int(_FREQUENCY_HZ / self._slowdown()),
            "frequency_max_hz": _FREQUENCY_HZ,
            "governor": "performance",
            "throttled": hot * _THROTTLED_NOW + since * _THROTTLED_SINCE,
            "load1": 0.0,
            "others_cpu_s": 0.0,
            "steal_s": 0.0,
            "own_cpu_s": self.elapsed_s,
            "cores": _CORES,
            "memory_available_bytes": None,
            "boot_id": "simulated",
        }

    def asked_state(self) -> dict[str, Any]:
        """The state, a simulated second later."""
        self.elapsed_s += _STATE_S
        return self.state()

    def race(self, files: Mapping[str, Mapping[str, Any]], message: Mapping[str, Any]) -> dict[str, Any]:
        """As the probe's `race`, without running anything."""
        before = self.state()
        answer: dict[str, Any] = {"samples_b": [], "warmups_b": []}
        series = {name: self._series(file) for name, file in files.items()}
        for name in series:
            answer[f"warmups_{name}"] = self._warm_up(files[name], message["warmup_runs"])
            answer.update({f"samples_{name}": [], f"load_s_{name}": [], f"first_s_{name}": []})
        for _ in range(message["rounds"]):
            for name, costs in series.items():
                sample = self._spend(next(costs), message["round_s"])
                for key in ("samples", "load_s", "first_s"):
                    answer[f"{key}_{name}"].append(sample)
        self._measurements += 1
        runs = dict.fromkeys(series, message["min_runs"])
        return {"ok": True, **answer, "runs": runs, "states": [before, self.state()]}

    def single(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """As the probe's `single`, without running anything."""
        before, start_s = self.state(), self.elapsed_s
        costs, runs = self._series(message), list[float]()
        warmups = self._warm_up(message, message["warmup_runs"])
        while len(runs) < min(max(1, message["min_runs"]), _MAX_RUNS) or (
            self.elapsed_s - start_s < message["min_s"] and len(runs) < _MAX_RUNS
        ):
            runs.append(self._spend(next(costs)))
        self._measurements += 1
        times = {"runs_s": runs, "count": len(runs), "warmups_s": warmups, "load_s": warmups[0], "first_s": warmups[0]}
        return {"ok": True, **times, "states": [before, self.state()]}

    def _series(self, file: Mapping[str, Any]) -> Iterator[float]:
        """What one run after the other costs while nothing slows the device down, in this measurement of the file."""
        sha256 = str(file["sha256"])
        self._measured[sha256] += 1
        noise = random.Random(f"{self._description.seed} {sha256} {self._measured[sha256]}")
        sigma = math.sqrt(math.log1p(self._latency.noise**2))
        slower = 1 + self._latency.drift * self._measurements
        return (cost * slower * math.exp(noise.gauss(0, sigma)) for cost in itertools.cycle(self.costs(file)))

    def _warm_up(self, file: Mapping[str, Any], runs: int) -> list[float]:
        return [self._spend(self.costs(file)[0]) for _ in range(min(max(1, runs), _MAX_WARMUPS))]

    def _spend(self, cost_s: float, least_s: float = 0.0) -> float:
        """What `cost_s` takes now; the clock moves on by that, or by `least_s` where such runs fill a whole round."""
        taken = cost_s * self._slowdown()
        self.elapsed_s += max(taken, least_s)
        return taken

    def _slowdown(self) -> float:
        throttle = self._description.throttle
        return throttle.factor if throttle and throttle.after_s <= self.elapsed_s < throttle.until_s else 1.0

    def _due(self, operation: Operation) -> Fault | None:
        for first, last, kind in self._scheduled:
            if first <= self._operations <= last:
                return kind
        draw = random.Random(f"{self._description.seed} fault {self._operations}").random()
        for kind, befalls in _BEFALLS.items():
            if operation in befalls:
                draw -= getattr(self._faults, kind)
                if draw < 0:
                    return kind
        return None


def _schedule(faults: Faults, path: Path) -> list[tuple[int, float, Fault]]:
    """First and last operation and kind of the faults asked for by number. Raises UsageError."""
    schedule: list[tuple[int, float, Fault]] = []
    for text in faults.at:
        match = _AT.fullmatch(text)
        kind = next((kind for kind in _BEFALLS if match and kind == match[4]), None)
        if match is None or kind is None:
            hint = f"write it like '12: lost', '40-60: lost' or '90-: busy', with one of {', '.join(_BEFALLS)}"
            raise UsageError(f"{path}, faults.at: {text[:60]!r} names no fault", hint)
        first = int(match[1])
        last = first if match[2] is None else int(match[3]) if match[3] else math.inf
        schedule.append((first, last, kind))
    return schedule


def _explained(error: ValidationError, path: Path) -> UsageError:
    """The first thing that is wrong with a description, on one line."""
    first = error.errors(include_url=False)[0]
    *tables, key = [str(part)[:60] for part in first["loc"]] or [""]
    where = ".".join([*tables, key])
    if first["type"] == "unexpected_keyword_argument":
        table = {"latency": Latency, "throttle": Throttle, "faults": Faults}.get(
            tables[0] if tables else "", Description
        )
        return UsageError(f"{path}: unknown key {where!r}", did_you_mean(key, [each.name for each in fields(table)]))
    return UsageError(f"{path}, {where}: {first['msg']}", "see docs/devices.md for an example")


def _read_recording(path: Path) -> dict[str, list[float]]:
    """Samples by SHA-256 of their file: of a run's result.json, or of one measurement. Raises UsageError."""
    source = Source(path, UsageError, "check recording in [latency]", "the recording")
    data = source.read_json(dict[str, Any])
    try:
        found = [each for item in data.get("artifacts", [data]) for each in _samples_of(item)]
        recorded = {each.sha256: list(each.samples) for each in (from_json(_Samples, item) for item in found)}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the recording {path} holds no latencies in seconds", "give the result.json of a run that was measured"
        ) from error
    return recorded


def _samples_of(item: Any) -> list[dict[str, Any]]:
    """Of the two files of a measurement, or of an entry of a result's `artifacts`."""
    if "against" in item:
        pairs = [(item["sha256"], item["samples"]), (item["against_sha256"], item["against"])]
        return [{"sha256": sha256, "unit": item["unit"], "samples": samples} for sha256, samples in pairs]
    return [
        {"sha256": item[f"{which}sha256"], **{key: item[f"{which}latency"][key] for key in ("unit", "samples")}}
        for which in ("", "baseline_")
    ]

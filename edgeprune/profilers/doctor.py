"""Is a device fit to measure on? Asked step by step, each answer with what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, EdgepruneError
from edgeprune.core.kinds import KINDS
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.session import DeviceSpec, Session
from edgeprune.core.units import format_bytes
from edgeprune.core.version import ONNX_IR, ONNX_OPSET
from edgeprune.devices import open_session
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, probe, push
from edgeprune.profilers.tiny_models import TINY_MODELS
from edgeprune.profilers.versions import needed

Status = Literal["PASS", "WARN", "FAIL", "SKIP"]
State = Mapping[str, Any]

_OLDEST_PYTHON = (3, 9)
#: Below the first figure a run cannot work, below the second it may not.
_DISK_BYTES = (50e6, 500e6)
_MEMORY_BYTES = (64e6, 256e6)
#: Boards start to throttle at 80 degrees Celsius; a warm one does so while it is measured.
_WARM_C = 70.0
_SKEW_S = 60.0
#: Share of all processors that other programs may use.
_BUSY = 0.2
#: What is not judged of an emulated processor, which counts instructions, and why.
_EMULATED: Mapping[str, str] = {
    **dict.fromkeys(("governor", "temperature", "throttling", "load"), "it changes no count of instructions"),
    "memory": "the emulated board's is made up",
}
#: `vcgencmd get_throttled`: what is so now; what was so since the start is the same 16 bits higher.
_FLAGS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "near its temperature limit"}


@dataclass(frozen=True, slots=True)
class Check:
    """One answer; `advice` is what to type or do, "" where nothing is."""

    name: str
    status: Status
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The device's state before and after watching it, and by how much its clock was ahead of ours."""

    before: State
    after: State
    skew_s: float


def check(spec: DeviceSpec, *, timeout_s: float = 120.0, watch_s: float = 1.0, probe_file: Path = PROBE) -> list[Check]:
    """Examine a device, its load for `watch_s` seconds. Raises no EdgepruneError: what fails is an answer, too."""
    try:
        session = open_session(spec)
    except EdgepruneError as error:
        return _unreached(error)
    with session:
        try:
            facts = session.facts()
        except EdgepruneError as error:
            return _unreached(error)
        examined = _Examination(session, timeout_s, watch_s, probe_file)
        return [
            Check(
                "reach", "PASS", ", ".join([spec.kind, *(str(facts[k]) for k in ("machine", "system") if facts.get(k))])
            ),
            _python(spec, {**facts, **examined.facts}, examined.unanswered),
            *examined.runtimes,
            _disk(facts.get("free_bytes")),
            *_state_checks(spec, examined),
        ]


class _Examination:
    """What the probe found: one process per runtime, since a broken one may take its process along."""

    def __init__(self, session: Session, timeout_s: float, watch_s: float, probe_file: Path) -> None:
        self._session, self._timeout_s, self._watch_s, self._probe_file = session, timeout_s, watch_s, probe_file
        self.runtimes: list[Check] = []
        self.facts: Mapping[str, Any] = {}
        #: What was seen of its state, or why nothing was.
        self.seen: _Seen | None = None
        self.stateless = ""
        #: Why no probe answered anything; None when one did.
        self.unanswered: DeviceError | None = None
        for runtime in TINY_MODELS:
            self.runtimes.append(self._try(runtime))
        if self.seen or self.stateless:
            self.unanswered = None

    def _try(self, runtime: RuntimeName) -> Check:
        spec = self._session.spec
        settings = MeasureSettings(runtime, threads=spec.threads or 1)
        wanted = runtime == (spec.runtime or "onnxruntime")
        try:
            with probe(self._session, settings, self._probe_file) as client:
                deadline = Deadline.after(self._timeout_s)
                if self.seen is None and not self.stateless:
                    self._watch(client, deadline)
                facts = client.hello([], deadline)
                self.facts = {**self.facts, **facts}
                pushed = push(self._session, TINY_MODELS[runtime])
                client.load("tiny", pushed, deadline)
                self._session.remove(pushed.path)
        except DeviceError as error:
            self.unanswered = error
            why = "" if wanted else "; it is needed for --runtime " + runtime + " only"
            status: Status = "FAIL" if wanted else "WARN"
            if newer := needed(error.message):
                written = f"; this version writes opset {ONNX_OPSET} and IR version {ONNX_IR}"
                return Check(runtime, status, error.message + written + why, f"install {newer} there")
            return Check(runtime, status, error.message + why, error.hint or _setup(spec))
        self.unanswered = None
        return Check(
            runtime, "PASS", f"{facts.get('runtime', runtime)} {facts.get('runtime_version', '')} runs a model"
        )

    def _watch(self, client: ProbeClient, deadline: Deadline) -> None:
        try:
            asked_s = time.time()
            before = client.state(deadline)
            skew_s = (_figure(before, "wall_s") or 0.0) - (asked_s + time.time()) / 2
            time.sleep(self._watch_s)
            self.seen = _Seen(before, client.state(deadline), skew_s)
        except ChannelError as error:
            if error.kind not in ("refused", "crashed") or "unknown op" not in error.message:
                raise
            self.stateless = error.message


def _unreached(error: EdgepruneError) -> list[Check]:
    others = ("python", *TINY_MODELS, "disk", *_STATE_CHECKS)
    return [
        Check("reach", "FAIL", error.message, error.hint),
        *(Check(name, "SKIP", "the device was not reached") for name in others),
    ]


def _setup(spec: DeviceSpec) -> str:
    return f"type: edgeprune devices setup {spec.name}" if KINDS[spec.kind].is_set_up else ""


def _python(spec: DeviceSpec, facts: Mapping[str, Any], unanswered: DeviceError | None) -> Check:
    if not KINDS[spec.kind].probed:
        return Check("python", "SKIP", "phones are measured by benchmark_model, which needs none")
    if unanswered is not None:
        return Check("python", "FAIL", unanswered.message, unanswered.hint or _setup(spec))
    version = str(facts.get("python", ""))
    try:
        known = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return Check("python", "PASS", "it runs the probe, and tells its version only beside a runtime")
    if known < _OLDEST_PYTHON:
        return Check("python", "FAIL", f"{version} is too old", "install Python 3.9 or later there, and give --python")
    return Check("python", "PASS", version)


def _disk(free: Any) -> Check:
    if not isinstance(free, int):
        return Check("disk", "SKIP", "this kind of device does not tell its free space")
    return _room("disk", free, _DISK_BYTES, "free some space there, or give another --folder")


def _room(name: str, free: float, limits: tuple[float, float], advice: str) -> Check:
    status: Status = "FAIL" if free < limits[0] else "WARN" if free < limits[1] else "PASS"
    return Check(name, status, f"{format_bytes(free)} free", "" if status == "PASS" else advice)


def _state_checks(spec: DeviceSpec, examined: _Examination) -> list[Check]:
    seen = examined.seen
    if seen is None:
        return [Check(name, "SKIP", examined.stateless or "no probe answered") for name in _STATE_CHECKS]
    if KINDS[spec.kind].made_up:
        return [Check(name, "SKIP", "made up: the device is simulated") for name in _STATE_CHECKS]
    return [
        Check(name, "SKIP", _EMULATED[name])
        if spec.emulated and name in _EMULATED
        else judge(seen) or Check(name, "SKIP", "the device does not tell")
        for name, judge in _STATE_CHECKS.items()
    ]


def _memory(seen: _Seen) -> Check | None:
    free = _figure(seen.after, "memory_available_bytes")
    return None if free is None else _room("memory", free, _MEMORY_BYTES, "end other programs there")


def _governor(seen: _Seen) -> Check | None:
    governor = seen.after.get("governor")
    if not isinstance(governor, str) or not governor:
        return None
    if governor == "performance":
        return Check("governor", "PASS", governor)
    advice = "for steadier figures type there: sudo cpupower frequency-set --governor performance"
    return Check("governor", "WARN", f"{governor}: the frequency changes with the load", advice)


def _temperature(seen: _Seen) -> Check | None:
    hottest = _figure(seen.after, "temperature_c")
    if hottest is None:
        return None
    if hottest < _WARM_C:
        return Check("temperature", "PASS", f"{hottest:.0f} degrees Celsius")
    advice = "let it cool, give it a heat sink or a fan"
    return Check("temperature", "WARN", f"{hottest:.0f} degrees Celsius: it will throttle under load", advice)


def _throttling(seen: _Seen) -> Check | None:
    flags = _figure(seen.after, "throttled")
    if flags is None:
        return None
    now, since = ([word for bit, word in _FLAGS.items() if int(flags) >> bit + later & 1] for later in (0, 16))
    advice = "use the official power supply and a short cable; cool the board; the flags go with a restart"
    if now:
        return Check("throttling", "FAIL", f"now: {', '.join(now)}", advice)
    if since:
        return Check("throttling", "WARN", f"since it was started: {', '.join(since)}", advice)
    return Check("throttling", "PASS", "none since it was started")


def _clock(seen: _Seen) -> Check | None:
    if _figure(seen.before, "wall_s") is None:
        return None
    if abs(seen.skew_s) <= _SKEW_S:
        return Check("clock", "PASS", f"{abs(seen.skew_s):.0f} s from ours")
    how = f"{abs(seen.skew_s):.0f} s {'ahead of' if seen.skew_s > 0 else 'behind'} ours"
    return Check("clock", "WARN", how, "set it, or downloads there fail: sudo timedatectl set-ntp true")


def _load(seen: _Seen) -> Check | None:
    figures = [_figure(state, key) for key in ("others_cpu_s", "mono_s") for state in (seen.before, seen.after)]
    cores = _figure(seen.after, "cores")
    busy_before, busy_after, start, end = figures
    if busy_before is None or busy_after is None or start is None or end is None or not cores or end <= start:
        return None
    share = max(0.0, busy_after - busy_before) / (end - start) / cores
    detail = f"other programs use {100 * share:.0f} % of its processors"
    return (
        Check("load", "PASS", detail) if share <= _BUSY else Check("load", "WARN", detail, "end them while measuring")
    )


def _figure(state: State, key: str) -> float | None:
    value = state.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


_STATE_CHECKS: Mapping[str, Callable[[_Seen], Check | None]] = {
    "memory": _memory,
    "governor": _governor,
    "temperature": _temperature,
    "throttling": _throttling,
    "clock": _clock,
    "load": _load,
}

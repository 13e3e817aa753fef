"""How far a measurement can be trusted, and what to do about it. Pure functions of what the device said of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.measurement import MeasureSettings, Verdict
from edgeprune.profilers.statistics import Interval

State = Mapping[str, Any]

#: An interval wider than this to either side is noise, where the settings ask for nothing narrower.
NOISY = 0.05
#: Bits of `throttled` (see `vcgencmd get_throttled`): of now, and the same 16 higher up for "since boot".
_UNDER_VOLTAGE, _SLOWED = 0b0001, 0b1110
#: Below this share of its highest frequency right after the race, a processor was held back.
_SLOW = 0.7
#: Android's thermal status: 2 is "moderate", from which on it throttles.
_THERMAL = 2
#: Cores, beyond what is left over, that others may use without harm: ticks of 10 ms, and the link's own work.
_SLACK = 0.1
#: Share of a core that a hypervisor may keep for itself.
_STOLEN = 0.05
#: Degrees that a sensor may jump between two looks.
_SENSOR_C = 1.0
#: Seconds by which the wall clock may run away from the steady one.
_JUMP_S = 1.0


@dataclass(frozen=True, slots=True)
class Taint:
    """Why a race does not count, and what to do about it."""

    verdict: Verdict
    advice: str


def taint(before: State, after: State, settings: MeasureSettings) -> Taint | None:
    """What was wrong with the device between two of its states; None where nothing is known to have been."""
    return _clock(before, after) or _throttled(before, after, settings) or _busy(before, after, settings.threads)


def judge(states: Sequence[State], interval: Interval | None, settings: MeasureSettings) -> tuple[Verdict, str]:
    """The verdict on all races of a measurement, and one sentence of advice (may be empty).

    states    (2 * races,)  before and after each race that counts; empty where the device has nothing to say
    interval  of the figure that matters; None: of a single process, which is not judged for noise

    A race that is tainted decides, since it is only kept where no better one was had; then the interval's width.
    """
    pairs = list(zip(states[::2], states[1::2], strict=False))
    taints = [found for before, after in pairs if (found := taint(before, after, settings))]
    if taints:
        worst = min(taints, key=lambda each: ("throttled", "busy", "noisy").index(each.verdict))
        return worst.verdict, f"{len(taints)} of {len(pairs)} processes: {worst.advice}"
    if interval is None:
        return "", "one process cannot tell how fresh ones differ: raise --processes"
    wanted = settings.half_width or NOISY
    if interval.half_width > wanted:
        more = "--max-seconds" if settings.half_width else "--processes"
        return "noisy", f"close other programs, {_governor(states)}or raise {more}"
    return "stable", _standing(states)


def _clock(before: State, after: State) -> Taint | None:
    if before.get("boot_id") != after.get("boot_id"):
        return Taint("noisy", "the device was rebooted meanwhile: measure again")
    wall, mono = _between(before, after, "wall_s"), _between(before, after, "mono_s")
    if wall is not None and mono is not None and abs(wall - mono) > _JUMP_S:
        return Taint("noisy", f"the device's clock jumped by {wall - mono:+.0f} s: let it set its time, measure again")
    return None


def _throttled(before: State, after: State, settings: MeasureSettings) -> Taint | None:
    now = _flags(before) & 0xF | _flags(after) & 0xF | (_flags(after) & ~_flags(before)) >> 16
    if now & _UNDER_VOLTAGE:
        return Taint("throttled", "under-voltage: use the official 5 V 3 A supply and a short cable")
    if now & _SLOWED:
        return Taint("throttled", "the processor is held back by its heat: give it a heat sink or a fan, let it cool")
    if any((_number(state, "thermal_status") or 0) >= _THERMAL for state in (before, after)):
        return Taint("throttled", "the phone is hot: unplug it, take off its case and let it cool")
    hot = _number(before, "temperature_c")
    if settings.cool_below_c is not None and hot is not None and hot > settings.cool_below_c + _SENSOR_C:
        return Taint("throttled", f"it stayed at {hot:.0f} degrees: give it a fan, or raise --cool-below")
    speed, most = _number(after, "frequency_hz"), _number(after, "frequency_max_hz")
    if speed and most and speed < _SLOW * most:
        what = _governor([after]).removesuffix(", ") or "let it cool, or give it a fan"
        return Taint("throttled", f"the processor ran at {speed / 1e9:.2f} of {most / 1e9:.2f} GHz: {what}")
    return None


def _busy(before: State, after: State, threads: int) -> Taint | None:
    spent = _between(before, after, "mono_s")
    others, stolen = _between(before, after, "others_cpu_s"), _between(before, after, "steal_s")
    cores = _number(after, "cores")
    if not spent or others is None or cores is None:
        return None
    if stolen is not None and stolen / spent > _STOLEN:
        return Taint("busy", "the machine's host gave its processor to others: measure on a machine of your own")
    if others / spent > cores - threads + _SLACK:
        used = f"other programs used {others / spent:.1f} of {cores:.0f} cores"
        return Taint("busy", f"{used}: close them, or lower --threads")
    return None


def _standing(states: Sequence[State]) -> str:
    """What is worth doing though nothing went wrong."""
    if any(_flags(state) >> 16 & _UNDER_VOLTAGE for state in states):
        return "there was under-voltage since it was switched on: use the official 5 V 3 A supply and a short cable"
    return _governor(states).removesuffix(", ")


def _governor(states: Sequence[State]) -> str:
    governor = next((state["governor"] for state in states if state.get("governor")), "performance")
    if governor == "performance":
        return ""
    return "set the governor: sudo cpupower frequency-set -g performance, "


def _flags(state: State) -> int:
    flags = state.get("throttled")
    return flags if isinstance(flags, int) and flags > 0 else 0


def _number(state: State, key: str) -> float | None:
    value = state.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _between(before: State, after: State, key: str) -> float | None:
    first, last = _number(before, key), _number(after, key)
    return None if first is None or last is None else last - first

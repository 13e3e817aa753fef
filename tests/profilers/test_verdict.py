from __future__ import annotations

from typing import Any

import pytest

from edgeprune.core.measurement import MeasureSettings
from edgeprune.profilers.statistics import Interval
from edgeprune.profilers.verdict import judge, taint

SETTINGS = MeasureSettings("onnxruntime", processes=5)
NARROW, WIDE = Interval(1.0, 0.99, 1.01, 5), Interval(1.0, 0.8, 1.2, 5)
CALM: dict[str, Any] = {
    "wall_s": 100.0,
    "mono_s": 10.0,
    "temperature_c": 50.0,
    "frequency_hz": 1.5e9,
    "frequency_max_hz": 1.5e9,
    "governor": "performance",
    "throttled": 0,
    "others_cpu_s": 5.0,
    "steal_s": 0.0,
    "cores": 4,
    "boot_id": "a",
}


def pair(seconds: float = 2.0, before: dict[str, Any] | None = None, **after: Any) -> list[dict[str, Any]]:
    first = CALM | (before or {})
    later = {"wall_s": first["wall_s"] + seconds, "mono_s": first["mono_s"] + seconds}
    return [first, first | later | after]


def test_a_calm_device_is_stable() -> None:
    assert taint(*pair(), SETTINGS) is None
    assert judge(pair() * 5, NARROW, SETTINGS) == ("stable", "")


@pytest.mark.parametrize(
    ("states", "verdict", "says"),
    [
        (pair(throttled=0x1), "throttled", "under-voltage: use the official"),
        (pair(throttled=0x10000), "throttled", "under-voltage"),  # came and went in between
        (pair(throttled=0x4), "throttled", "heat"),
        (pair(throttled=0x40000), "throttled", "heat"),
        (pair(before={"throttled": 0x8}), "throttled", "heat"),
        (pair(frequency_hz=0.6e9), "throttled", "ran at 0.60 of 1.50 GHz"),
        (pair(frequency_hz=0.6e9, governor="powersave"), "throttled", "cpupower frequency-set -g performance"),
        (pair(thermal_status=2), "throttled", "the phone is hot"),
        (pair(others_cpu_s=5.0 + 2 * 3.5), "busy", "3.5 of 4 cores: close them"),
        (pair(steal_s=0.5), "busy", "host"),
        (pair(wall_s=3000.0), "noisy", "clock jumped"),
        (pair(boot_id="b"), "noisy", "rebooted"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(states: list[dict[str, Any]], verdict: str, says: str) -> None:
    found = taint(*states, SETTINGS)
    assert found is not None
    assert found.verdict == verdict
    assert says in found.advice
    judged = judge(pair() * 4 + states, NARROW, SETTINGS)
    assert judged[0] == verdict
    assert judged[1].startswith("1 of 5 processes: ")


@pytest.mark.parametrize(
    "states",
    [
        pair(before={"throttled": 0x50000}),  # since boot, before we came
        pair(before={"frequency_hz": 0.6e9}, frequency_hz=1.5e9),  # it idled before
        pair(others_cpu_s=5.0 + 2 * 3.0),  # a core was left
        [{}, {}],  # a device that tells nothing
        [dict.fromkeys(CALM)] * 2,
    ],
)
def test_what_does_no_harm_is_no_taint(states: list[dict[str, Any]]) -> None:
    assert taint(*states, SETTINGS) is None


def test_more_threads_leave_fewer_cores_to_others() -> None:
    states = pair(others_cpu_s=5.0 + 2 * 2.0)
    assert taint(*states, SETTINGS) is None
    assert taint(*states, MeasureSettings("onnxruntime", threads=4)) is not None


def test_a_device_that_did_not_cool_down_is_throttled() -> None:
    cool = MeasureSettings("onnxruntime", cool_below_c=45.0)
    found = taint(*pair(), cool)
    assert found is not None
    assert "--cool-below" in found.advice
    assert taint(*pair(before={"temperature_c": 44.0}), cool) is None


def test_a_wide_interval_is_noise() -> None:
    assert judge(pair() * 5, WIDE, SETTINGS)[0] == "noisy"
    asked = MeasureSettings("onnxruntime", half_width=0.005, max_s=1.0)
    verdict, advice = judge(pair() * 5, NARROW, asked)
    assert verdict == "noisy"
    assert "--max-seconds" in advice


def test_a_governor_that_saves_power_is_only_advice() -> None:
    states = [state | {"governor": "ondemand"} for state in pair() * 5]
    assert judge(states, NARROW, SETTINGS) == ("stable", "set the governor: sudo cpupower frequency-set -g performance")


def test_under_voltage_before_the_measurement_is_only_advice() -> None:
    verdict, advice = judge(pair(before={"throttled": 0x50000}) * 5, NARROW, SETTINGS)
    assert verdict == "stable"
    assert "official 5 V" in advice


def test_one_process_is_not_judged() -> None:
    verdict, advice = judge(pair(), None, SETTINGS)
    assert verdict == ""
    assert "--processes" in advice

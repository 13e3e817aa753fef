from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.session import DeviceSpec
from edgeprune.devices import open_session
from edgeprune.devices.local import LocalSession
from edgeprune.profilers.client import Pushed
from edgeprune.profilers.loop import CalmRaces, LoopProfiler
from edgeprune.profilers.replies import Race
from edgeprune.profilers.retry import Patience


def pid_of(profiler: LoopProfiler) -> int:
    assert profiler._client is not None
    return profiler._client._channel.pid  # type: ignore[attr-defined,no-any-return]


def fresh_probes(said: list[str]) -> list[str]:
    """Without what is said of the machine, which others may keep busy while the tests run."""
    return [line for line in said if "fresh probe" in line]


def test_many_candidates_one_process(
    session: LocalSession, quick: MeasureSettings, full_model: Path, half_model: Path
) -> None:
    with LoopProfiler(session, quick, full_model) as profiler:
        first = profiler.measure(half_model)
        process = pid_of(profiler)
        second = profiler.measure(full_model)
        assert pid_of(profiler) == process
        assert profiler.device_seconds > 0
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert len(first.samples) == len(first.against) == len(first.process) == quick.rounds
    assert first.sha256 != first.against_sha256 == second.sha256
    assert first.peak_bytes < first.against_peak_bytes
    assert second.peak_bytes == pytest.approx(second.against_peak_bytes, rel=0.05)
    assert first.device == "local"
    assert first.facts["runtime"] == "onnxruntime"
    assert first.settings.processes == 0
    assert from_json(Measurement, json.loads(json.dumps(to_json(first)))) == first


def test_facts_for_keys_are_stable(session: LocalSession, quick: MeasureSettings, full_model: Path) -> None:
    with LoopProfiler(session, quick, full_model) as one, LoopProfiler(session, quick, full_model) as two:
        assert one.runtime_facts() == two.runtime_facts()
        assert one.runtime_facts()["runtime_version"]
        assert not {"memory_bytes", "release"} & set(one.runtime_facts())


def test_nothing_is_left_on_the_device(
    session: LocalSession, quick: MeasureSettings, full_model: Path, half_model: Path, not_a_model: Path
) -> None:
    with LoopProfiler(session, quick, full_model) as profiler:
        profiler.measure(full_model)
        before = sorted(os.listdir(session._work))
        profiler.measure(half_model)
        profiler.measure(not_a_model)
        assert sorted(os.listdir(session._work)) == before


def test_a_refused_candidate_is_a_failure_and_the_probe_lives(
    session: LocalSession, quick: MeasureSettings, full_model: Path, half_model: Path, not_a_model: Path
) -> None:
    with LoopProfiler(session, quick, full_model) as profiler:
        assert isinstance(profiler.measure(half_model), Measurement)
        process = pid_of(profiler)
        failure = profiler.measure(not_a_model)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.retryable) == ("refused", False)
        assert pid_of(profiler) == process
        assert isinstance(profiler.measure(half_model), Measurement)


def test_a_baseline_that_does_not_run_is_an_error(
    session: LocalSession, quick: MeasureSettings, full_model: Path, not_a_model: Path
) -> None:
    with (
        LoopProfiler(session, quick, not_a_model, warm_model=full_model) as profiler,
        pytest.raises(DeviceError, match="unpruned model does not run"),
    ):
        profiler.measure(full_model)


def test_a_missing_file_is_an_error(session: LocalSession, quick: MeasureSettings, full_model: Path) -> None:
    with LoopProfiler(session, quick, full_model) as profiler, pytest.raises(DeviceError, match="cannot copy"):
        profiler.measure(Path("/nowhere/model.onnx"))


def test_a_python_without_the_runtime_says_what_to_install(
    quick: MeasureSettings, full_model: Path, tmp_path: Path
) -> None:
    bare = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if bare is None:
        pytest.skip("no system Python beside this one")
    settings = replace(quick, runtime="litert")
    with (
        open_session(DeviceSpec("local", "local", python=bare)) as session,
        LoopProfiler(session, settings, full_model) as profiler,
        pytest.raises(DeviceError, match="pip install ai-edge-litert") as caught,
    ):
        profiler.measure(full_model)
    assert not caught.value.retryable


def test_a_probe_killed_between_requests_is_replaced(
    session: LocalSession, quick: MeasureSettings, full_model: Path, half_model: Path
) -> None:
    said: list[str] = []
    with LoopProfiler(session, quick, full_model, log=said.append) as profiler:
        profiler.measure(half_model)
        os.kill(pid_of(profiler), signal.SIGKILL)
        assert isinstance(profiler.measure(half_model), Measurement)
    assert len(fresh_probes(said)) == 1


@pytest.mark.parametrize("how", ["die", "abort", "garbage", "nested", "flood"])
@pytest.mark.parametrize("op", ["hello", "race"])
def test_a_probe_that_fails_once_costs_one_retry(
    session: LocalSession,
    quick: MeasureSettings,
    full_model: Path,
    half_model: Path,
    fails_once: Callable[[str, str], Path],
    how: str,
    op: str,
) -> None:
    # What a misbehaving probe prints goes to its guarded stdout, so "garbage" at an op of the real probe is harmless.
    said: list[str] = []
    probe_file = fails_once(how, op)
    with LoopProfiler(session, quick, full_model, log=said.append, probe_file=probe_file) as profiler:
        assert isinstance(profiler.measure(half_model), Measurement)
    assert len(fresh_probes(said)) == (1 if how in {"die", "abort"} else 0)


def test_a_probe_that_hangs_once_is_replaced_at_the_deadline(
    session: LocalSession,
    quick: MeasureSettings,
    full_model: Path,
    half_model: Path,
    fails_once: Callable[[str, str], Path],
) -> None:
    said: list[str] = []
    probe_file = fails_once("hang", "race")
    with LoopProfiler(
        session, quick, full_model, log=said.append, patience=Patience(3), probe_file=probe_file
    ) as profiler:
        assert isinstance(profiler.measure(half_model), Measurement)
    assert "in time" in fresh_probes(said)[0]


@pytest.mark.parametrize("how", ["die", "garbage", "nested", "hang"])
def test_a_probe_that_never_comes_up_is_an_error(
    session: LocalSession, quick: MeasureSettings, full_model: Path, fails_always: Callable[[str], Path], how: str
) -> None:
    probe_file = fails_always(how)
    with (
        LoopProfiler(session, quick, full_model, patience=Patience(0.7), probe_file=probe_file) as profiler,
        pytest.raises(DeviceError),
    ):
        profiler.measure(full_model)


def test_a_device_that_dies_for_good_gives_failures(
    session: LocalSession,
    quick: MeasureSettings,
    full_model: Path,
    half_model: Path,
    fails_always: Callable[[str], Path],
) -> None:
    with LoopProfiler(session, quick, full_model) as profiler:
        profiler.measure(half_model)
        os.kill(pid_of(profiler), signal.SIGKILL)
        profiler._probe_file = fails_always("die")
        failure = profiler.measure(half_model)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.retryable) == ("crashed", True)
    assert "out of memory" in failure.message


class Watched:
    """A client whose races take so many seconds each, on a device in these states."""

    def __init__(self, seconds: list[float], states: tuple[dict[str, object], ...]) -> None:
        self.seconds, self.states = iter(seconds), states
        self.now, self.races = 0.0, 0

    def race(self, candidate: Pushed, baseline: Pushed, deadline: Deadline) -> Race:
        self.now += next(self.seconds)
        self.races += 1
        return Race((1.0,) * 3, (2.0,) * 3, (1.0,), 0.1, 0.1, self.states)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CALM: tuple[dict[str, object], ...] = ({}, {})
HOT: tuple[dict[str, object], ...] = ({}, {"throttled": 4})
BUSY: tuple[dict[str, object], ...] = (
    {"mono_s": 0.0, "wall_s": 0.0, "others_cpu_s": 0.0, "cores": 2},
    {"mono_s": 1.0, "wall_s": 1.0, "others_cpu_s": 2.0, "cores": 2},
)


@pytest.mark.parametrize(
    ("seconds", "states", "races", "spent"),
    [
        ([0.5], CALM, 1, 0.5),
        ([0.5, 0.5, 0.5], BUSY, 3, 1.5),
        # Short races leave room for a rest within three seconds, long ones for three times the quickest.
        ([0.5, 0.5], HOT, 2, 3.0),
        ([4.0, 9.0], BUSY, 2, 13.0),
        ([10.0, 10.0, 10.0], BUSY, 3, 30.0),
        ([30.0, 70.0], BUSY, 2, 100.0),
    ],
)
def test_a_disturbed_race_is_repeated_only_as_long_as_a_candidate_may_take(
    quick: MeasureSettings,
    seconds: list[float],
    states: tuple[dict[str, object], ...],
    races: int,
    spent: float,
) -> None:
    said: list[str] = []
    client = Watched(seconds, states)
    calm = CalmRaces(quick, lambda _: None, said.append, clock=lambda: client.now, sleep=client.sleep)
    nothing = Pushed("", "")
    _, tainted, rejected = calm.race(client, nothing, nothing, Deadline.after(1000))  # type: ignore[arg-type]
    assert (client.races, rejected, client.now) == (races, races - 1, pytest.approx(spent))
    assert (tainted is not None) == (states is not CALM) == bool(said)
    assert next(client.seconds, None) is None


def test_the_user_hears_once_that_the_machine_is_busy(quick: MeasureSettings) -> None:
    said: list[str] = []
    client = Watched([0.5] * 6, BUSY)
    calm = CalmRaces(quick, lambda _: None, said.append, clock=lambda: client.now)
    nothing = Pushed("", "")
    for _ in range(2):
        calm.race(client, nothing, nothing, Deadline.after(1000))  # type: ignore[arg-type]
    assert len(said) == 1
    assert said[0].startswith("measuring is disturbed (busy): other programs used 2.0 of 2 cores: close them")

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.made_up_session import MadeUpSession
from fakes.tiny_tflite import write_tflite

from edgeprune.core.errors import UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.profilers import recorded
from edgeprune.profilers.controlled import Controlled, evidence_of, race_controlled
from edgeprune.profilers.evidence import Evidence, Figure, decide
from edgeprune.profilers.gate import FigureName, Threshold, default_gate
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.profile import Wanted, compare_file, profile_files
from edgeprune.profilers.records import Profile, ProfiledOn, Profiles

SETTINGS = MeasureSettings("litert", processes=7)
SEEDS = 200
STRICT = Threshold("lower")
Device = Callable[..., MadeUpSession]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A, B that is A, and another file of the same size."""
    a, other = write_tflite(tmp_path / "a.tflite"), write_tflite(tmp_path / "other.tflite", seed=1)
    b = tmp_path / "b.tflite"
    b.write_bytes(a.read_bytes())
    return a, b, other


@pytest.fixture
def device(tmp_path: Path, files: tuple[Path, Path, Path]) -> Device:
    """A device on which the other file takes `slower` times as long."""

    def make(seed: int = 0, slower: float = 1.0, drift: float = 0.0, **made_up: float) -> MadeUpSession:
        file = tmp_path / "device.toml"
        known = f'sha256 = {{ "{sha256_file(files[2])}" = {1e-3 * slower} }}'
        file.write_text(f"seed = {seed}\n[latency]\nbase_s = 1e-3\n{known}\nnoise = 0.01\ndrift = {drift}\n")
        return MadeUpSession(file, **made_up)

    return make


def race(session: MadeUpSession, a: Path, b: Path, *wanted: FigureName, processes: int = 7) -> Controlled:
    settings = replace(SETTINGS, processes=processes)
    return race_controlled(session, settings, (a, b), [GivenInputs()] * 2, wanted)


def latency(session: MadeUpSession, a: Path, b: Path, threshold: Threshold = STRICT) -> Figure:
    return decide("latency", evidence_of(race(session, a, b, "latency"))["latency"], threshold)


def test_identical_files_are_hardly_ever_called_worse(device: Device, files: tuple[Path, Path, Path]) -> None:
    """With a threshold of 0, by which the interval alone would be wrong once in 40 races to either side."""
    a, b, _ = files
    found = [latency(device(seed, scatter=0.02), a, b) for seed in range(SEEDS)]
    assert sum(each.verdict == "worse" for each in found) <= SEEDS / 40
    assert sum(each.verdict == "better" for each in found) <= SEEDS / 40


def test_identical_files_pass_the_default_gate(device: Device, files: tuple[Path, Path, Path]) -> None:
    a, b, _ = files
    gate = default_gate().figures
    for seed in range(20):
        told = evidence_of(race(device(seed, scatter=0.02), a, b, *gate))
        assert set(told) == {"latency", "p90", "load", "memory", "bytes"}
        for name, each in told.items():
            assert decide(name, each, gate[name]).verdict in ("same", "open"), (seed, name)


def test_ten_percent_are_found(device: Device, files: tuple[Path, Path, Path]) -> None:
    a, _, other = files
    gate = default_gate().figures["latency"]
    found = [latency(device(seed, slower=1.1, scatter=0.01), a, other, gate) for seed in range(20)]
    assert all(each.verdict == "worse" for each in found)
    assert all(each.percent == pytest.approx(10, abs=3) for each in found)
    back = [latency(device(seed, slower=1.1, scatter=0.01), other, a, gate) for seed in range(10)]
    assert [each.verdict for each in back] == ["better"] * 10


def test_a_device_that_favours_one_place_is_told_by_the_control(device: Device, files: tuple[Path, Path, Path]) -> None:
    """Without the control arm a file beside itself would be 8 % slower there, each time."""
    a, b, _ = files
    for seed in range(10):
        told = evidence_of(race(device(seed, scatter=0.01, first=1.08), a, b))["latency"]
        assert decide("latency", replace(told, control=None), default_gate().figures["latency"]).verdict == "worse"
        assert decide("latency", told, default_gate().figures["latency"]).verdict in ("same", "open")


def test_the_order_changes_from_process_to_process(device: Device, files: tuple[Path, Path, Path]) -> None:
    a, _, other = files
    session, asked = device(), []
    races = session._race
    session._race = lambda message: asked.append(message["a"]["path"]) or races(message)  # type: ignore[method-assign]
    found = race(session, a, other, "p90", "memory", processes=4)
    assert asked[:4] == [str(other), str(a), str(a), str(other)]
    assert len(found.races) == len(found.timed) == 4
    assert len(found.held) == 5
    assert found.held[0].a == found.held[0].copy


def test_a_slow_device_does_not_hide_behind_its_copy_alone(device: Device, files: tuple[Path, Path, Path]) -> None:
    """One process says nothing of noise: what it shows is open, never worse."""
    a, _, other = files
    told = evidence_of(race(device(slower=1.5), a, other, processes=1))["latency"]
    assert told.interval is None
    assert decide("latency", told, STRICT).verdict == "open"


def profile(session: MadeUpSession, *files: Path, raced: bool = False) -> Profiles:
    settings = replace(SETTINGS, min_runs=120, round_s=0.0, rounds=1, processes=7)
    found = profile_files(session, files, settings, [GivenInputs()] * len(files), Wanted())
    assert all(isinstance(each, Profile) for each in found)
    told = ProfiledOn("made-up", False, session.facts())
    against = str(files[-1]) if len(files) > 1 else None
    races = [compare_file(session, *found, settings, GivenInputs(), GivenInputs())] if raced else []  # type: ignore[arg-type]
    return Profiles(device=told, profiles=tuple(found), against=against, comparisons=tuple(races))  # type: ignore[arg-type]


def kept(path: Path, profiles: Profiles, change: Callable[[dict[str, Any]], Any] = lambda _: None) -> Path:
    plain = to_json(profiles)
    change(plain)
    path.write_text(json.dumps(plain))
    return path


def records(tmp_path: Path, *profiles: Profiles) -> dict[FigureName, Evidence]:
    a, b = (recorded.read_profile(kept(tmp_path / f"{i}.json", each)) for i, each in enumerate(profiles))
    recorded.check_alike(a, b, "")
    return recorded.evidence_of(a, b)


def test_what_two_sessions_differ_by_is_told_by_the_file_both_have(
    device: Device, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """On a device that becomes slower with every measurement, the later record looks worse."""
    a, _, other = files
    baseline = write_tflite(tmp_path / "baseline.tflite", seed=2)
    session = device(drift=0.004)
    ours, theirs = profile(session, a, baseline), profile(session, other, baseline)
    told = records(tmp_path, ours, theirs)
    strict = Threshold("lower", most_percent=1)
    for name in ("latency", "p90"):
        assert decide(name, replace(told[name], control=None), strict).verdict == "worse"  # type: ignore[index,arg-type]
        assert decide(name, told[name], strict).verdict in ("same", "open")  # type: ignore[index,arg-type]


def test_what_was_raced_with_the_same_file_is_compared_through_it(
    device: Device, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """However much slower the later session is, a file that is 10 % slower is told, and one that is not is not."""
    a, b, other = files
    baseline = write_tflite(tmp_path / "baseline.tflite", seed=2)
    session = device(slower=1.1, drift=0.01)
    told = [profile(session, each, baseline, raced=True) for each in (a, other, b)]
    slower = records(tmp_path, *told[:2])["latency"]
    assert decide("latency", slower, default_gate().figures["latency"]).verdict == "worse"
    assert 100 * slower.change / slower.a == pytest.approx(10, abs=2)
    same = records(tmp_path, told[0], told[2])["latency"]
    assert decide("latency", same, default_gate().figures["latency"]).verdict == "same"


def test_records_without_a_common_file_have_no_floor(
    device: Device, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    a, _, other = files
    session = device(slower=1.2)
    told = records(tmp_path, profile(session, a), profile(session, other))
    assert told["latency"].floor is None
    assert decide("latency", told["latency"], default_gate().figures["latency"]).verdict == "worse"
    assert told["memory"].change == told["bytes"].change == 0


def test_records_of_one_file_are_never_worse(device: Device, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b, _ = files
    session = device(drift=0.01)
    told = records(tmp_path, profile(session, a), profile(session, b))
    for name, each in told.items():
        assert decide(name, each, STRICT).verdict in ("same", "open"), name
        assert not decide(name, each, STRICT).regression


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plain: plain["device"].update(name="rpi4"), "the device is made-up in "),
        (lambda plain: plain["profiles"][0]["facts"].update(cpu="M1"), "cpu is simulated (device.toml"),
        (lambda plain: plain["profiles"][0]["facts"].update(runtime_version="2.0"), "runtime version is None in"),
        (lambda plain: plain["profiles"][0]["settings"].update(threads=4), "threads is 1 in "),
        (lambda plain: plain["profiles"][0].update(unit="s"), "the unit is simulated s in "),
        (
            lambda plain: plain["profiles"][0].update(
                inputs=[{"name": "x", "shape": [8, 4], "dtype": "float32", "how": "given"}]
            ),
            "inputs is [] in",
        ),
    ],
)
def test_what_was_not_measured_alike_is_refused(
    device: Device, files: tuple[Path, Path, Path], tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    profiles = profile(device(), files[0])
    a = recorded.read_profile(kept(tmp_path / "a.json", profiles))
    b = recorded.read_profile(kept(tmp_path / "b.json", profiles, change))
    recorded.check_alike(a, a, "")
    with pytest.raises(UsageError, match="they were not measured alike") as refused:
        recorded.check_alike(a, b, "profile both alike")
    assert says in refused.value.message
    assert refused.value.hint == "profile both alike"


def test_a_profile_of_several_files_is_refused(device: Device, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    profiles = profile(device(), files[0], files[2])
    path = kept(tmp_path / "two.json", profiles, lambda plain: plain.update(against=None))
    with pytest.raises(UsageError, match="profiles of 2 files, expected one"):
        recorded.read_profile(path)

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.tiny_models import write_mlp

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.units import format_cost
from edgeprune.devices import ChannelError, find_device, open_session
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, push
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.retry import Patience

SETTINGS = MeasureSettings("onnxruntime", rounds=5)
FORMULA = "[latency]\nbase_s = 1e-4\ns_per_byte = 1e-9\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return write_mlp(folder / "half.onnx", (16, 32, 4)), write_mlp(folder / "full.onnx", (16, 64, 4))


@pytest.fixture
def described(tmp_path: Path) -> Callable[[str], Any]:
    def make(text: str) -> Any:
        (tmp_path / "sim.toml").write_text(text)
        return open_session(find_device(f"simulated://{tmp_path / 'sim.toml'}"))

    return make


def measured(
    session: Any, candidate: Path, baseline: Path, times: int = 1, log: Callable[[str], None] | None = None
) -> list[Any]:
    with session, LoopProfiler(session, SETTINGS, baseline, log=log, patience=Patience(60)) as profiler:
        return [profiler.measure(candidate) for _ in range(times)]


def race(session: Any, *files: Path) -> Any:
    client = ProbeClient(session.start(PROBE), SETTINGS, session.spec.unit)
    client.hello([], Deadline.after(60))
    return client.race(push(session, files[0]), push(session, files[-1]), Deadline.after(60))


def test_a_formula_gives_simulated_seconds_and_real_memory(described: Any, models: tuple[Path, Path]) -> None:
    (cost,) = measured(described(FORMULA), *models)
    assert cost.median == pytest.approx(1e-4 + 1e-9 * models[0].stat().st_size)
    assert cost.against_median == pytest.approx(1e-4 + 1e-9 * models[1].stat().st_size)
    assert cost.peak_bytes > 1000
    assert cost.unit == "simulated s"
    assert cost.facts["kind"] == "simulated"
    assert cost.facts["cpu"].startswith("simulated (sim.toml ")
    assert "(simulated)" in format_cost(cost.median, cost.unit)


def test_the_same_description_gives_the_same_figures(described: Any, models: tuple[Path, Path]) -> None:
    def samples(seed: int) -> list[Any]:
        with described(f"seed = {seed}\n{FORMULA}noise = 0.1\n") as session:
            return [race(session, *models).samples for _ in range(2)]

    first = samples(1)
    assert first == samples(1)
    assert first[0] != first[1]
    assert first != samples(2)


def test_faults_change_no_figure(described: Any, models: tuple[Path, Path]) -> None:
    text = f"{FORMULA}noise = 0.1\ndrift = 0.01\n"
    calm = measured(described(text), *models, times=4)
    faults = '[faults]\nat = ["2: busy", "9: garbled", "22: killed", "35-36: lost", "50: timeout"]\n'
    log: list[str] = []
    shaken = measured(described(text + faults), *models, times=4, log=log.append)
    assert [cost.samples for cost in shaken] == [cost.samples for cost in calm]
    assert [line.split(":")[1].split(";")[0].strip() for line in log] == (
        ["busy", "garbled", "killed", "lost", "lost", "timeout"]
    )


def test_noise_is_as_large_as_asked(described: Any, models: tuple[Path, Path]) -> None:
    with described(f"{FORMULA}noise = 0.05\n") as session:
        client = ProbeClient(session.start(PROBE), SETTINGS, session.spec.unit)
        client.hello([], Deadline.after(60))
        runs = client.single(push(session, models[0]), 1.0, Deadline.after(60)).samples
    assert statistics.stdev(runs) / statistics.mean(runs) == pytest.approx(0.05, rel=0.2)


def test_drift_slows_each_measurement(described: Any, models: tuple[Path, Path]) -> None:
    with described(f"{FORMULA}drift = 0.5\n") as session:
        medians = [statistics.median(race(session, *models).samples) for _ in range(3)]
    assert [median / medians[0] for median in medians] == pytest.approx([1.0, 1.5, 2.0])


def test_throttling_shows_in_figures_and_states(described: Any, models: tuple[Path, Path]) -> None:
    with described(f"{FORMULA}[throttle]\nafter_s = 0.5\nuntil_s = 3.0\nfactor = 2.0\n") as session:
        cool = race(session, *models)
        client = ProbeClient(session.start(PROBE), SETTINGS, session.spec.unit)
        states = [client.state(Deadline.after(60)) for _ in range(3)]
        hot = states[0]
    assert cool.states[1]["throttled"] == 0
    assert hot["throttled"] == 0x40004
    assert hot["frequency_hz"] * 2 == hot["frequency_max_hz"]
    assert hot["temperature_c"] > 80
    assert states[2]["throttled"] == 0x40000
    assert states[2]["temperature_c"] < 60


def test_a_table_and_a_recording_are_replayed(described: Any, models: tuple[Path, Path], tmp_path: Path) -> None:
    half, full = (sha256_file(path) for path in models)
    with described(f"[latency.sha256]\n{half} = 0.001\n{full} = 0.002\n") as session:
        assert set(race(session, *models).samples) == {0.001}
    result = {
        "artifacts": [
            {
                "sha256": half,
                "baseline_sha256": full,
                "latency": {"unit": "s", "samples": [0.1, 0.2]},
                "baseline_latency": {"unit": "s", "samples": [0.3]},
            }
        ]
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    with described('[latency]\nrecording = "result.json"\n') as session:
        raced = race(session, *models)
    assert raced.samples == (0.1, 0.2, 0.1, 0.2, 0.1)
    assert raced.against == (0.3,) * 5


def test_a_stored_measurement_is_a_recording(described: Any, models: tuple[Path, Path], tmp_path: Path) -> None:
    (cost,) = measured(described(f"{FORMULA}noise = 0.1\n"), *models)
    (tmp_path / "cost.json").write_text(json.dumps(to_json(cost)))
    (again,) = measured(described('[latency]\nrecording = "cost.json"\n'), *models)
    assert again.samples == cost.samples
    assert again.against == cost.against


def test_a_file_that_nothing_tells_the_cost_of_is_refused(described: Any, models: tuple[Path, Path]) -> None:
    with described("[latency]\nnoise = 0.1\n") as session, pytest.raises(ChannelError, match="no latency of") as caught:
        race(session, *models)
    assert caught.value.kind == "refused"


def test_a_file_that_is_no_model_is_refused_by_the_real_runtime(described: Any, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with described(FORMULA) as session, pytest.raises(ChannelError, match="cannot open the model") as caught:
        race(session, tmp_path / "no.onnx")
    assert caught.value.kind == "refused"


def test_this_machines_seconds_are_not_given_out(described: Any, models: tuple[Path, Path]) -> None:
    with described(FORMULA) as session:
        client = ProbeClient(session.start(PROBE), SETTINGS, session.spec.unit)
        client.hello([], Deadline.after(60))
        assert "race" in client.ops
        assert not {"throughput", "operators"} & client.ops
        for op in ("throughput", "operators"):
            channel = session.start(PROBE)
            assert not channel.request({"op": op}, Deadline.after(20))["ok"]


@pytest.mark.parametrize("kind", ["lost", "timeout", "garbled", "killed", "busy"])
def test_a_fault_comes_where_it_was_asked_for(described: Any, kind: str) -> None:
    with described(f'{FORMULA}[faults]\nat = ["3: {kind}"]\n') as session:
        channel = session.start(PROBE)
        channel.request({"op": "state"}, Deadline.after(20))
        with pytest.raises(ChannelError, match=f"simulated fault at operation 3 .*{kind}") as caught:
            channel.request({"op": "state"}, Deadline.after(20))
        assert caught.value.kind == kind
        with pytest.raises(ChannelError, match="has ended"):
            channel.request({"op": "state"}, Deadline.after(20))
        session.start(PROBE).request({"op": "state"}, Deadline.after(20))


def test_a_device_may_be_away_for_a_while_or_full(described: Any, models: tuple[Path, Path]) -> None:
    with described(f'{FORMULA}[faults]\nat = ["2-3: lost", "5-: full"]\n') as session:
        session.push(models[0])
        for kind in ("lost", "lost", None, "full", "full"):
            if kind is None:
                session.push(models[0])
                continue
            with pytest.raises(ChannelError) as caught:
                session.push(models[0])
            assert caught.value.kind == kind
        assert not caught.value.retryable


def test_chances_befall_what_they_can(described: Any, models: tuple[Path, Path]) -> None:
    with described(f"{FORMULA}[faults]\nfull = 1.0\n") as session:
        session.start(PROBE).request({"op": "state"}, Deadline.after(20))
        with pytest.raises(ChannelError) as caught:
            session.push(models[0])
    assert caught.value.kind == "full"


def test_a_delay_longer_than_the_deadline_is_a_timeout(described: Any) -> None:
    with described(f"{FORMULA}[faults]\ndelay_s = 0.2\n") as session:
        channel = session.start(PROBE)
        with pytest.raises(ChannelError) as caught:
            channel.request({"op": "state"}, Deadline.after(0.01))
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency", "is not TOML"),
        ("seed = 1\n", "latency: Field required"),
        ("sede = 1\n[latency]\n", "unknown key 'sede'; did you mean 'seed'"),
        ("[latency]\nnoize = 1\n", r"unknown key 'latency\.noize'; did you mean 'noise'"),
        ('[latency]\nnoise = "loud"\n', r"latency\.noise: Input should be a valid number"),
        ("[latency]\nbase_s = -1\n", r"latency\.base_s: Input should be greater"),
        ("[latency]\nbase_s = nan\n", r"latency\.base_s"),
        (f"{FORMULA}[throttle]\nafter_s = 1\nfactor = 0.5\n", r"throttle\.factor"),
        (f'{FORMULA}[faults]\nat = ["3 lost"]\n', "'3 lost' names no fault; write it like"),
        (f'{FORMULA}[faults]\nat = ["3: lots"]\n', "'3: lots' names no fault; .*lost"),
        ('[latency]\nrecording = "none.json"\n', "cannot read the recording"),
        ('[latency]\nrecording = "sim.toml"\n', "cannot read the recording .*: it is not JSON"),
        ('[latency]\nrecording = "counts.json"\n', "holds no latencies in seconds"),
    ],
)
def test_a_wrong_description_is_one_clear_line(described: Any, tmp_path: Path, text: str, says: str) -> None:
    counts = {"sha256": "a", "unit": "instructions", "samples": [5.0], "against_sha256": "b", "against": [5.0]}
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    with pytest.raises(UsageError, match=says) as caught:
        described(text)
    assert "\n" not in str(caught.value)


def test_a_description_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the simulated device"):
        open_session(find_device(f"simulated://{tmp_path / 'none.toml'}"))

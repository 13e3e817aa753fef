"""Which runtime, with how many threads, is measured where the program is to choose."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import edgeprune
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import DeviceError, ExportError, RuntimeMissing, UsageError
from edgeprune.core.measurement import FailureKind
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Silent
from edgeprune.core.runtimes import Precision, RuntimeName
from edgeprune.core.session import DeviceSpec
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.devices import find_device, open_session
from edgeprune.devices.channel import ChannelError
from edgeprune.pipeline.backends import as_chosen, choose_backend, fastest
from edgeprune.pipeline.config import RunConfig, make_config, to_plain
from edgeprune.pipeline.found import data_as_given
from edgeprune.pipeline.records.backends import ChosenBackend, TimedBackend
from edgeprune.pipeline.resume import more_is_asked

QUICK = {"episodes": 4, "train_epochs": 2, "finetune_epochs": 1, "finalists": 1, "search_steps": 2, "processes": 3}


def timed(runtime: RuntimeName, threads: int, latency: float | None, precision: Precision = "fp32") -> TimedBackend:
    ends = None if latency is None else (latency, latency)
    return TimedBackend(runtime=runtime, threads=threads, precision=precision, latency=latency, interval=ends)


def test_the_fastest_is_taken_and_of_those_as_fast_the_one_with_fewest_threads() -> None:
    one, two, four = (timed("onnxruntime", *each) for each in ((1, 1.0), (2, 0.8), (4, 0.77)))
    lite = timed("litert", 2, 0.79)
    assert fastest([four, one, two]) == two, "4 % are not worth two cores more"
    assert fastest([four, one, two, lite]) == lite, "of as many threads the faster"
    assert fastest([one, timed("litert", 4, 0.5)]) == timed("litert", 4, 0.5)


def test_what_could_not_be_timed_is_not_taken() -> None:
    whole = timed("onnxruntime", 1, 1.0)
    assert fastest([timed("litert", 1, None), whole]) == whole
    assert fastest([timed("litert", 1, None)]) is None


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device of four cores on which a file takes the longer, the larger it is, with whatever threads."""
    (tmp_path / "board.toml").write_text("[latency]\nbase_s = 1e-4\ns_per_byte = 1e-9\n")
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    return f"simulated://{tmp_path / 'board.toml'}"


def trials_of(folder: Path) -> list[tuple[object, float]]:
    with closing(TrialStore(folder / "trials.sqlite", read_only=True)) as store:
        return [(each.candidate.plan, each.reward) for each in store.trials()]


@pytest.mark.soak
def test_a_run_measures_with_what_it_chose_and_is_that_of_who_gives_it(
    tmp_path: Path, simulated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(device=simulated, runs_dir=tmp_path, runtime="auto", threads="auto", name="chosen", **QUICK)
    result = edgeprune.run(config).result
    tried = [(each["runtime"], each["threads"]) for each in result["backends"]]
    assert tried == [(name, count) for name in ("onnxruntime", "litert") for count in (1, 2, 4)]
    by_runtime = {each["runtime"]: each["latency"] for each in result["backends"]}
    best = min(by_runtime, key=lambda name: by_runtime[name])
    assert (result["config"]["runtime"], result["config"]["threads"]) == (best, 1)
    assert result["settled"]["runtime"] == {"value": best, "why": "of 6 that were timed there"}
    judged = next(each for each in result["artifacts"] if each["path"] == result["budget"]["artifact"])
    assert (judged["settings"]["runtime"], judged["settings"]["threads"]) == (best, 1)

    given = RunConfig(device=simulated, runs_dir=tmp_path, runtime=best, threads=1, name="given", **QUICK)
    assert edgeprune.run(given).result["backends"] == []
    assert trials_of(tmp_path / "given") == trials_of(tmp_path / "chosen")

    # Whoever goes on with it measures as it did, whatever would be fastest by now.
    monkeypatch.setattr("edgeprune.pipeline.run.choose_backend", None)
    assert edgeprune.run(config, resume=True).result == result
    more = edgeprune.run(RunConfig(**{**vars_of(config), "finetune_epochs": 2}), resume=True).result
    assert (more["config"]["runtime"], more["backends"]) == (best, result["backends"])


def vars_of(config: RunConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in ("device", "runs_dir", "runtime", "threads", "name", *QUICK)}


def test_a_runtime_that_is_not_there_is_left_out_and_said() -> None:
    python = os.environ.get("EDGEPRUNE_TFLITE_PYTHON")
    if not python:
        pytest.skip("EDGEPRUNE_TFLITE_PYTHON names no Python with numpy < 2 and tflite-runtime; .ci/run makes one")
    config = RunConfig(runtime="auto", threads=1)
    with open_session(DeviceSpec("board", "local", python=python)) as session:
        chosen = choose_backend(config, data_as_given(config, Silent()), session, Silent())
        missing, lite = chosen.timed
        assert (chosen.runtime, lite.runtime, missing.runtime) == ("litert", "litert", "onnxruntime")
        assert "no onnxruntime" in missing.why
        assert missing.latency is None
        only = RunConfig(runtime="auto", threads=1, formats="onnx")
        with pytest.raises(RuntimeMissing):
            choose_backend(only, data_as_given(only, Silent()), session, Silent())


def test_an_emulated_processor_gets_one_thread(tmp_path: Path, simulated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    with open_session(find_device(simulated)) as session:
        monkeypatch.setattr(type(session.spec), "unit", property(lambda _: "instructions"))

        def count(_: object, alternatives: list[object], __: object) -> list[DeviceError]:
            asked.extend(each.threads for each in alternatives)  # type: ignore[attr-defined]
            return [DeviceError("no") for _ in alternatives]

        monkeypatch.setattr("edgeprune.pipeline.backends.time_alternatives", count)
        config = RunConfig(threads="auto", runtime="litert")
        with pytest.raises(DeviceError, match="no"):
            choose_backend(config, data_as_given(config, Silent()), session, Silent())
    assert asked == [1]


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": "many"}, {"runtime": "fast"}])
def test_what_is_neither_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        make_config(wrong, "here")


def chosen_for(config: RunConfig, device: str) -> ChosenBackend:
    with open_session(find_device(device)) as session:
        return choose_backend(config, data_as_given(config, Silent()), session, Silent())


@pytest.mark.parametrize("name", ["tokens.py", "lstm.py", "two_sensors.py"])
def test_inputs_are_given_as_the_network_takes_them(name: str, simulated: str) -> None:
    file = Path(__file__).parents[2] / "examples" / name
    config = RunConfig(data=f"{file}:data", model=f"{file}:Net", runtime="auto", threads=1, formats="onnx")
    (only,) = chosen_for(config, simulated).timed
    assert (only.runtime, only.why) == ("onnxruntime", "")


def test_only_the_precision_that_is_searched_at_is_timed(simulated: str) -> None:
    config = RunConfig(precision="fp32,int8", runtime="auto", threads=1, formats="onnx")
    assert [each.precision for each in chosen_for(config, simulated).timed] == ["fp32"]


@pytest.mark.parametrize("kind", ["crashed", "refused", "lost"])
def test_a_runtime_that_dies_at_once_is_left_out(
    kind: FailureKind, simulated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cores(_: object, runtime: RuntimeName) -> int:
        if runtime == "onnxruntime":
            raise ChannelError(kind, "the probe died with SIGILL")
        return 2

    monkeypatch.setattr("edgeprune.pipeline.backends.cores_of", cores)
    config = RunConfig(runtime="auto", threads="auto")
    if kind == "lost":
        with pytest.raises(ChannelError):
            chosen_for(config, simulated)
        return
    chosen = chosen_for(config, simulated)
    assert (chosen.runtime, chosen.threads, chosen.chosen) == ("litert", 1, ("runtime", "threads"))
    assert "SIGILL" in chosen.timed[0].why


def test_a_file_that_answers_otherwise_is_left_out(simulated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_: object, artifact: Artifact, __: object) -> None:
        if artifact.format == "onnx":
            raise ExportError("it differs")

    monkeypatch.setattr("edgeprune.pipeline.backends.check_file", check)
    chosen = chosen_for(RunConfig(runtime="auto", threads=1), simulated)
    assert (chosen.runtime, chosen.timed[0].why) == ("litert", "it differs")


def test_what_was_given_stays_beside_what_was_chosen(tmp_path: Path) -> None:
    found = ChosenBackend(runtime="litert", threads=1, chosen=("runtime", "threads"), timed=())
    RunFolder(tmp_path).write_json("backends.json", to_json(found))
    for runtime, threads, expected in (
        ("auto", "auto", ("litert", 1)),
        ("onnxruntime", "auto", ("onnxruntime", 1)),
        ("auto", 4, ("litert", 4)),
        ("onnxruntime", 4, ("onnxruntime", 4)),
    ):
        config = as_chosen(RunFolder(tmp_path), RunConfig(runtime=runtime, threads=threads))  # type: ignore[arg-type]
        assert (config.runtime, config.threads) == expected


def test_a_run_that_was_killed_before_its_settings_were_written_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "killed")
    folder.path.mkdir()
    open_still = RunConfig(runs_dir=tmp_path, name="killed", runtime="auto", threads="auto")
    folder.write_json("config.json", to_plain(open_still))
    folder.write_json(
        "backends.json", to_json(ChosenBackend(runtime="litert", threads=2, chosen=("runtime",), timed=()))
    )
    assert not more_is_asked(folder, as_chosen(folder, open_still))
    with pytest.raises(UsageError, match="made with --runtime litert, not onnxruntime"):
        more_is_asked(folder, as_chosen(folder, replace(open_still, runtime="onnxruntime")))


def test_a_latency_comes_with_its_interval() -> None:
    with pytest.raises(ValueError, match="latency with its interval"):
        TimedBackend(runtime="litert", threads=1, precision="fp32", latency=1.0)

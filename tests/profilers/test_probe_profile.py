"""The probe's requests that `edgeprune profile` adds: state, single, throughput, operators, shapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeprune.core.clock import Deadline
from edgeprune.core.files import sha256_file
from edgeprune.devices.channel import ProcessChannel
from edgeprune.probe import PROBE

Ask = Callable[..., dict[str, Any]]
SINGLE = {"warmup_runs": 2, "warmup_s": 0.0, "min_runs": 25, "min_s": 0.0, "max_s": 5.0}


@pytest.fixture
def channel() -> Iterator[ProcessChannel]:
    opened = ProcessChannel([sys.executable, "-u", str(PROBE)])
    yield opened
    opened.close()


@pytest.fixture
def ask(channel: ProcessChannel) -> Ask:
    return lambda op, **fields: channel.request({"op": op, **fields}, Deadline.after(60))


@pytest.fixture
def ort(ask: Ask) -> Ask:
    assert ask("hello", runtime="onnxruntime", threads=1, warm=[])["ok"]
    return ask


def model(path: Path, **shapes: list[int]) -> dict[str, Any]:
    return {"path": str(path), "sha256": sha256_file(path), "shapes": shapes}


@pytest.fixture
def sequence_model(tmp_path: Path) -> Path:
    """Two integer inputs, (batch, length) each, and one of booleans (batch): its cost grows with the length."""
    nodes = [
        helper.make_node("Add", ["ids", "mask"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["cast"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Cast", ["flag"], ["on"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["cast"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["on"], ["flags"], keepdims=0),
        helper.make_node("Add", ["total", "flags"], ["out"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", "length"]),
        helper.make_tensor_value_info("mask", onnx.TensorProto.INT64, ["n", "length"]),
        helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, ["n", 3]),
    ]
    outputs = [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    path = tmp_path / "sequence.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_state_tells_what_is_there_and_none_where_nothing_is(ask: Ask) -> None:
    state = ask("state")["state"]
    assert set(state) == {
        "wall_s", "mono_s", "temperature_c", "frequency_hz", "frequency_max_hz", "governor", "throttled", "load1",
        "others_cpu_s", "steal_s", "own_cpu_s", "cores", "memory_available_bytes", "boot_id",
    }  # fmt: skip
    assert state["cores"] == len(os.sched_getaffinity(0))
    assert state["own_cpu_s"] > 0
    if not Path("/sys/devices/system/cpu/cpu0/cpufreq").exists():
        assert state["frequency_hz"] is None
        assert state["governor"] is None


def test_others_are_seen_at_work(ask: Ask) -> None:
    before = ask("state")["state"]
    end = os.times().elapsed + 0.3
    while os.times().elapsed < end:
        pass
    after = ask("state")["state"]
    assert after["others_cpu_s"] - before["others_cpu_s"] > 0.1


def test_vcgencmd_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x50005\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    channel = ProcessChannel([sys.executable, "-u", str(PROBE)])
    try:
        assert channel.request({"op": "state"}, Deadline.after(60))["state"]["throttled"] == 0x50005
        program.write_text("#!/bin/sh\necho VCHI initialization failed\n")
        assert channel.request({"op": "state"}, Deadline.after(60))["state"]["throttled"] is None
    finally:
        channel.close()


def test_single_gives_every_run(ort: Ask, full_model: Path) -> None:
    answer = ort("single", **model(full_model), **SINGLE)
    assert answer["count"] == len(answer["runs_s"]) == 25
    assert min(answer["runs_s"]) > 0
    assert len(answer["states"]) == 2
    assert answer["load_s"] > 0
    timed = ort("single", **model(full_model), **{**SINGLE, "min_runs": 1, "min_s": 0.1})
    assert timed["count"] > 25
    cut = ort("single", **model(full_model), **{**SINGLE, "min_runs": 10**9, "max_s": 0.05})
    assert 1 <= cut["count"] < 10**6
    assert len(cut["runs_s"]) <= 20_000


def test_streams_run_at_once(ort: Ask, full_model: Path) -> None:
    answer = ort("throughput", **model(full_model), streams=2, seconds=0.1)
    assert len(answer["per_stream"]) == 2
    assert min(answer["per_stream"]) >= 1
    assert answer["inferences"] == sum(answer["per_stream"])
    assert 0.05 < answer["seconds"] < 5


def test_operators_are_timed_and_nothing_is_left_behind(ort: Ask, full_model: Path, tmp_path: Path) -> None:
    answer = ort("operators", **model(full_model), runs=5, scratch=str(tmp_path / "trace"))
    assert {each["type"] for each in answer["operators"]} >= {"Gemm"} or answer["operators"]
    assert all(each["seconds"] >= 0 for each in answer["operators"])
    assert list(tmp_path.iterdir()) == []


def test_open_axes_are_given_or_asked_for(ort: Ask, sequence_model: Path) -> None:
    asked = ort("single", **model(sequence_model), **SINGLE)
    assert asked["kind"] == "refused"
    assert asked["hint"] == "these sizes run (yours may be others): type --shape ids=1x16 --shape mask=1x16"
    assert "(length): the inputs are ids [n, length], mask [n, length], flag [n, 3]" in asked["error"]
    assert ort("load", id="m", **model(sequence_model, ids=[1, 7], mask=[1, 7]))["inputs"] == [
        ["ids", [1, 7], "int64"],
        ["mask", [1, 7], "int64"],
        ["flag", [1, 3], "bool_"],
    ]
    short, long = (
        min(ort("single", **model(sequence_model, ids=[1, n], mask=[1, n]), **SINGLE)["runs_s"]) for n in (1, 1 << 20)
    )
    assert long > short  # a million additions and not one
    without = {key: value for key, value in model(sequence_model).items() if key != "shapes"}
    assert ort("load", id="m", **without)["ok"]  # files of our own: every open axis is 1


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"tokens": [1, 7]}, "no input 'tokens'; the inputs are ids [n, length], mask [n, length], flag [n, 3]"),
        ({"ids": [7]}, "input ids cannot be 7; the inputs are ids [n, length]"),
        ({"ids": [1, 7], "mask": [1, 7], "flag": [1, 4]}, "input flag cannot be 1x4"),
        ({"ids": [1, 7, 1]}, "input ids cannot be 1x7x1"),
    ],
)
def test_a_wrong_shape_is_refused_with_the_inputs(
    ort: Ask, sequence_model: Path, shapes: dict[str, list[int]], says: str
) -> None:
    answer = ort("single", **model(sequence_model, **shapes), **SINGLE)
    assert answer["kind"] == "refused"
    assert says in answer["error"]


@pytest.mark.shared
def test_litert_resizes_and_times(ask: Ask, shared_data: Path, tmp_path: Path) -> None:
    ask("hello", runtime="litert", threads=1, warm=[])
    path = shared_data / "models" / "ad01_fp32.tflite"
    assert ask("load", id="m", **model(path, input_1=[4, 640]))["inputs"][0][1] == [4, 640]
    assert ask("single", **model(path), **SINGLE)["count"] == 25
    assert "cannot be 4x641" in ask("load", id="m", **model(path, input_1=[4, 641]))["error"]
    answer = ask("operators", **model(path), runs=3, scratch=str(tmp_path / "trace"))
    assert answer["operators"] is None
    assert "no times per operator" in answer["why"]


@pytest.mark.shared
def test_every_file_is_profiled(ask: Ask, shared_data: Path) -> None:
    ask("hello", runtime="litert", threads=1, warm=[])
    for path in sorted((shared_data / "models").glob("*.tflite")):
        answer = ask("single", **model(path), **SINGLE)
        if path.name.startswith("bad_"):
            assert answer["kind"] == "refused"
            assert "SignalWindow" in answer["error"]
            assert "\n" not in answer["error"]
        else:
            assert answer["ok"], path.name


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.float16, np.float64, np.int32])
def test_inputs_of_other_types(ort: Ask, tmp_path: Path, kind: type) -> None:
    given = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", given, ["n", 4])],
        [helper.make_tensor_value_info("y", given, ["n", 4])],
    )
    path = tmp_path / "identity.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert ort("single", **model(path), **SINGLE)["ok"]

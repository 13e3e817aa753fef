from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.tiny_models import mlp_logits, write_mlp

from edgeprune.core.clock import Deadline
from edgeprune.core.files import sha256_file
from edgeprune.devices.channel import ChannelError, ProcessChannel
from edgeprune.probe import PROBE, probe

Ask = Callable[..., dict[str, Any]]


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


def model(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": sha256_file(path)}


RACE = {"rounds": 3, "round_s": 0.0005, "min_runs": 3, "warmup_runs": 2, "warmup_s": 0.0, "most_s": 60.0}


def test_it_is_one_file_for_python_3_9() -> None:
    tree = ast.parse(PROBE.read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime"}


def test_hello_tells_the_machine_and_no_name(ask: Ask, full_model: Path) -> None:
    facts = ask("hello", runtime="onnxruntime", threads=1, warm=[model(full_model)])["facts"]
    assert facts["runtime"] == "onnxruntime"
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 0
    assert {"machine", "system", "release", "cpu", "python", "libc", "numpy", "governor", "mallinfo2"} <= set(facts)
    assert not {"hostname", "node"} & set(facts)


def test_load_predict_unload(ort: Ask, full_model: Path, tmp_path: Path) -> None:
    loaded = ort("load", id="m", **model(full_model))
    assert loaded["inputs"] == [["x", [1, 64], "float32"]]
    assert loaded["load_s"] > 0
    images = np.random.default_rng(0).random((5, 64), np.float32)
    np.save(tmp_path / "in.npy", images)
    answer = ort("predict", id="m", inputs=str(tmp_path / "in.npy"), outputs=str(tmp_path / "out.npy"))
    assert answer["count"] == 5
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), mlp_logits(full_model, images), rtol=1e-4, atol=1e-4)
    assert ort("unload", id="m")["ok"]
    assert "no model is loaded" in ort("predict", id="m", inputs="x", outputs="y")["error"]


def test_race_gives_a_sample_a_round(ort: Ask, full_model: Path, half_model: Path) -> None:
    answer = ort("race", a=model(half_model), b=model(full_model), **RACE)
    for key in ("samples_a", "samples_b"):
        assert len(answer[key]) == 3
        assert min(answer[key]) > 0
    assert answer["warmups_a"]
    assert answer["runs"]["a"] * 2 >= 3
    alone = ort("race", a=model(half_model), b=None, **RACE)
    assert len(alone["samples_a"]) == 3
    assert alone["samples_b"] == []


def test_a_race_that_takes_too_long_has_three_rounds(ort: Ask, half_model: Path, full_model: Path) -> None:
    patient = {**RACE, "rounds": 50, "warmup_runs": 1000, "min_runs": 1000}
    answer = ort("race", a=model(half_model), b=model(full_model), **{**patient, "most_s": 0.0})
    assert len(answer["samples_a"]) == len(answer["samples_b"]) == 3
    assert answer["runs"] == {"a": 1, "b": 1}
    assert len(answer["warmups_a"]) <= 4


def test_memory_grows_with_the_model_and_repeats(ort: Ask, tmp_path: Path) -> None:
    small = model(write_mlp(tmp_path / "small.onnx", (256, 128, 10)))
    large = model(write_mlp(tmp_path / "large.onnx", (256, 1024, 10)))
    ort("memory", **large)
    held = [ort("memory", **file)["bytes"] for file in (small, large, small, large)]
    assert ort("memory", **small)["method"] in {"mallinfo2", "vmhwm"}
    weights = 4 * (1024 - 128) * (256 + 10)
    assert held[1] - held[0] == pytest.approx(weights, rel=0.05)
    assert held[1] == pytest.approx(held[3], rel=0.02)
    assert held[0] == pytest.approx(held[2], rel=0.05)


def test_activations_count_as_memory(ort: Ask, tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    side = 512
    nodes = [helper.make_node("Exp", ["x"], ["y"]), helper.make_node("Transpose", ["y"], ["z"], perm=[0, 2, 1])]
    nodes.append(helper.make_node("ReduceMax", ["z"], ["o"], keepdims=0))
    shape = helper.make_tensor_value_info("x", 1, [1, side, side])
    graph = helper.make_graph(nodes, "g", [shape], [helper.make_tensor_value_info("o", 1, [])])
    path = tmp_path / "wide.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    ort("memory", **model(path))
    held = ort("memory", **model(path))["bytes"]
    assert 4 * side * side <= held <= 3 * 4 * side * side + 300_000


@pytest.mark.parametrize("op", ["load", "memory", "race"])
def test_what_is_no_model_is_refused_and_the_probe_lives(
    ort: Ask, not_a_model: Path, full_model: Path, op: str
) -> None:
    fields = {"race": {"a": model(not_a_model), "b": None, **RACE}}.get(op, {"id": "m", **model(not_a_model)})
    if op == "memory":
        fields = model(not_a_model)
    answer = ort(op, **fields)
    assert (answer["ok"], answer["kind"]) == (False, "refused")
    assert "\n" not in answer["error"]
    assert ort("load", id="m", **model(full_model))["ok"]


def test_another_file_than_was_sent_is_lost(ort: Ask, full_model: Path) -> None:
    answer = ort("load", id="m", path=str(full_model), sha256="0" * 64)
    assert (answer["kind"], answer["ok"]) == ("lost", False)
    assert ort("load", id="m", path="/nowhere", sha256="0" * 64)["kind"] == "lost"


def test_bad_requests_are_answered(ask: Ask, full_model: Path) -> None:
    assert ask("load", id="m", **model(full_model))["kind"] == "crashed"  # no hello yet
    assert "unknown op" in ask("dance")["error"]
    assert ask("hello", runtime="abacus", threads=1, warm=[])["kind"] == "refused"
    assert ask("hello", runtime="onnxruntime")["kind"] == "crashed"
    assert ask("quit")["ok"]
    with pytest.raises(ChannelError):
        ask("quit")


def test_an_input_of_another_shape_is_refused(ort: Ask, full_model: Path, tmp_path: Path) -> None:
    ort("load", id="m", **model(full_model))
    for shape in ((2, 63), (2, 64, 2)):
        np.save(tmp_path / "in.npy", np.zeros(shape, np.float32))
        answer = ort("predict", id="m", inputs=str(tmp_path / "in.npy"), outputs=str(tmp_path / "out.npy"))
        assert answer["kind"] == "refused"
    np.save(tmp_path / "in.npy", np.zeros((2, 8, 8), np.float32))  # flattening is no guess
    assert ort("predict", id="m", inputs=str(tmp_path / "in.npy"), outputs=str(tmp_path / "out.npy"))["ok"]


def test_pickles_are_not_read(ort: Ask, full_model: Path, tmp_path: Path) -> None:
    ort("load", id="m", **model(full_model))
    np.save(tmp_path / "in.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    answer = ort("predict", id="m", inputs=str(tmp_path / "in.npy"), outputs=str(tmp_path / "out.npy"))
    assert not answer["ok"]


def test_noise_on_stdout_does_not_reach_the_protocol(tmp_path: Path, full_model: Path) -> None:
    """A runtime that prints from Python and from C at import and later; here a module in its place on the path."""
    noisy = tmp_path / "noisy.py"
    noisy.write_text(
        "import os, runpy\n"
        f"probe = runpy.run_path({str(PROBE)!r})\n"
        "serve = probe['_serve']\n"
        "def loud(state, request):\n"
        "    print('INFO: hello from Python', flush=True)\n"
        "    os.write(1, b'{\"ok\": false}\\n')\n"
        "    os.system('echo from a child')\n"
        "    return serve(state, request)\n"
        "probe['main'].__globals__['_serve'] = loud\n"
        "probe['main']()\n"
    )
    channel = ProcessChannel([sys.executable, "-u", str(noisy)])
    try:
        hello = {"op": "hello", "runtime": "onnxruntime", "threads": 1, "warm": [model(full_model)]}
        assert channel.request(hello, Deadline.after(60))["ok"]
        assert channel.request({"op": "load", "id": "m", **model(full_model)}, Deadline.after(60))["ok"]
    finally:
        channel.close()


@pytest.mark.shared
@pytest.mark.parametrize("name", ["ic_pretrainedResnet.tflite", "ic_pretrainedResnet_quant.tflite", "ad01_fp32.tflite"])
def test_litert_models(ask: Ask, shared_data: Path, tmp_path: Path, name: str) -> None:
    file = model(shared_data / "models" / name)
    assert ask("hello", runtime="litert", threads=1, warm=[file])["facts"]["runtime"] in {
        "ai_edge_litert",
        "tflite_runtime",
    }
    loaded = ask("load", id="m", **file)
    shape = loaded["inputs"][0][1]
    assert ask("memory", **file)["bytes"] > 100_000
    assert len(ask("race", a=file, b=file, **RACE)["samples_b"]) == 3
    np.save(tmp_path / "in.npy", np.random.default_rng(0).random((3, *shape[1:]), np.float32))
    answer = ask("predict", id="m", inputs=str(tmp_path / "in.npy"), outputs=str(tmp_path / "out.npy"))
    assert answer["count"] == 3
    logits = np.load(tmp_path / "out.npy")
    assert logits.dtype == np.float32
    assert logits.shape == (3, int(np.prod(loaded["outputs"][0][1])))
    if "quant" in name:  # the softmax at its end, in real values and not in steps of int8
        np.testing.assert_allclose(logits.sum(axis=1), 1, atol=0.05)


@pytest.mark.shared
def test_litert_refuses_an_unknown_operator(ask: Ask, shared_data: Path) -> None:
    ask("hello", runtime="litert", threads=1, warm=[])
    answer = ask("load", id="m", **model(shared_data / "models" / "bad_audio_preprocessor_int8.tflite"))
    assert answer["kind"] == "refused"
    assert "SignalWindow" in answer["error"]


def test_what_a_dying_process_left_of_its_request_is_not_the_next_ones(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    whole = [json.dumps([f"{number:09d}", "echo", {"of": number}]).encode() + b"\n" for number in (3, 4)]
    requests.write_bytes(whole[0][1:] + whole[1])  # one byte of the first is eaten
    takes, (reads, gives) = os.open(requests, os.O_RDONLY), os.pipe()
    assert probe._serve_one({"echo": dict}, takes, gives) == 0
    with os.fdopen(reads, "rb") as answers:
        assert json.loads(answers.read()) == {"number": "000000004", "of": 4, "ok": True}

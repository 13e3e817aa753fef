"""Files that nobody here wrote, through the real probe: odd types, wrong declarations, weights outside, signatures."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fakes.foreign import FLOAT, INT64, value, write_onnx, write_signatures
from onnx import TensorProto, helper

from edgeprune.core.clock import Deadline
from edgeprune.core.files import sha256_file
from edgeprune.devices.channel import ProcessChannel
from edgeprune.probe import PROBE

Ask = Callable[..., dict[str, Any]]
SINGLE = {"warmup_runs": 1, "warmup_s": 0.0, "min_runs": 3, "min_s": 0.0, "max_s": 5.0}


def probe_of(runtime: str) -> Iterator[Ask]:
    channel = ProcessChannel([sys.executable, "-u", str(PROBE)])

    def ask(op: str, **fields: Any) -> dict[str, Any]:
        return channel.request({"op": op, **fields}, Deadline.after(60))

    assert ask("hello", runtime=runtime, threads=1, warm=[])["ok"]
    yield ask
    channel.close()


@pytest.fixture(scope="module")
def ort() -> Iterator[Ask]:
    yield from probe_of("onnxruntime")


@pytest.fixture
def fresh_ort() -> Iterator[Ask]:
    """Not the module's: how a probe binds stays as it was last needed."""
    yield from probe_of("onnxruntime")


@pytest.fixture(scope="module")
def litert() -> Iterator[Ask]:
    yield from probe_of("litert")


def request(path: Path, values: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A FILE as the probe takes it; arrays are saved beside the model."""
    named: dict[str, Any] = {}
    for index, (name, given) in enumerate((values or {}).items()):
        if isinstance(given, str):
            named[name] = {"text": given}
            continue
        there = path.with_name(f"{path.stem}-{index}.npy")
        np.save(there, given, allow_pickle=False)
        named[name] = {"path": str(there), "sha256": sha256_file(there)}
    return {"path": str(path), "sha256": sha256_file(path), "shapes": {}, "values": named, **more}


def single(ask: Ask, path: Path, values: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return ask("single", **request(path, values, **more), **SINGLE)


def identity(path: Path, kind: int, axes: list[Any], out: int = 0, node: str = "Identity", **attributes: Any) -> Path:
    made = helper.make_node(node, ["x"], ["y"], **attributes)
    return write_onnx(path, [made], [value("x", kind, axes)], [value("y", out or kind, None)], opset=21)


@pytest.mark.parametrize(
    ("kind", "given", "how"),
    [
        (INT64, None, "0"),
        (INT64, "16000", "given"),
        (INT64, np.arange(4, dtype=np.int32)[None], "given"),
        (TensorProto.BOOL, None, "false"),
        (TensorProto.BOOL, "true", "given"),
        (TensorProto.UINT8, None, "random in 0 to 127"),
        (FLOAT, "1e-3", "given"),
        (FLOAT, np.zeros((1, 4)), "given"),
        (TensorProto.STRING, None, "empty"),
        (TensorProto.STRING, "word", "given"),
        (TensorProto.STRING, np.array([["a", "b", "c", "d"]]), "given"),
    ],
)
def test_values_are_given_or_said_to_be_made_up(ort: Ask, tmp_path: Path, kind: int, given: Any, how: str) -> None:
    path = identity(tmp_path / "m.onnx", kind, ["n", 4])
    answer = single(ort, path, {} if given is None else {"x": given})
    assert answer["ok"], answer
    (told,) = answer["opened"]["inputs"]
    assert told[0], told[1] == ("x", [1, 4])
    assert told[3] == how


def test_values_decide_which_branch_runs(ort: Ask, tmp_path: Path) -> None:
    """As silero-vad's sampling rate does: the other branch cannot take this input."""
    right = helper.make_graph([helper.make_node("Identity", ["x"], ["a"])], "r", [], [value("a", FLOAT, None)])
    wrong = helper.make_graph([helper.make_node("Reshape", ["x", "seven"], ["b"])], "w", [], [value("b", FLOAT, None)])
    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["is"]),
        helper.make_node("If", ["is"], ["y"], then_branch=right, else_branch=wrong),
    ]
    inputs = [value("x", FLOAT, [1, 8]), value("sr", INT64, [])]
    weights = {"rate": np.array(16000), "seven": np.array([7])}
    path = write_onnx(tmp_path / "m.onnx", nodes, inputs, [value("y", FLOAT, None)], weights)
    assert single(ort, path, {"sr": "16000"})["ok"]
    assert single(ort, path)["kind"] == "refused"


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (INT64, "fast", "input x takes a whole number (int64), got fast"),
        (TensorProto.UINT8, "256", "input x takes a whole number (uint8), got 256"),
        (TensorProto.BOOL, "2", "input x takes true or false (bool), got 2"),
        (INT64, np.zeros((1, 4)), "input x takes int64, the file holds float64"),
        (TensorProto.INT8, np.full((1, 4), 128), "input x takes int8, the file holds int64"),
        (TensorProto.STRING, np.zeros((1, 4)), "input x takes string, the file holds float64"),
        (FLOAT, np.zeros((1, 5), np.float32), "input x cannot be 1x5; the inputs are x [n, 4]"),
        (TensorProto.FLOAT8E4M3FN, "1", "input x is of float8e4m3fn: give its values as a file"),
    ],
)
def test_values_that_do_not_fit_are_refused(ort: Ask, tmp_path: Path, kind: int, given: Any, says: str) -> None:
    answer = single(ort, identity(tmp_path / "m.onnx", kind, ["n", 4]), {"x": given})
    assert answer["kind"] == "refused"
    assert says in answer["error"]


def test_an_unknown_input_is_refused_unless_another_file_may_have_it(ort: Ask, tmp_path: Path) -> None:
    path = identity(tmp_path / "m.onnx", FLOAT, [1, 4])
    assert "no input 'z'; the inputs are x [1, 4]" in single(ort, path, {"z": "1"})["error"]
    assert single(ort, path, {"z": "1"}, shared=["z"])["opened"]["unused"] == ["z"]


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        (TensorProto.BFLOAT16, np.array([[1.5, -2.0, 3.0, 1e30]], np.float32)),
        (TensorProto.BFLOAT16, np.array([[0x3FC0, 0xC000, 0x4040, 0x0000]], np.uint16).view("V2")),
        (TensorProto.FLOAT8E5M2, np.array([[0x3C, 0xC0, 0, 0]], np.uint8).view("V1")),
        (TensorProto.INT4, np.array([[1, 15, 7, 8]], np.uint8).view("V1")),
        (TensorProto.UINT4, None),
        (TensorProto.BFLOAT16, None),
    ],
)
def test_types_that_numpy_does_not_have(ort: Ask, tmp_path: Path, kind: int, array: Any) -> None:
    path = identity(tmp_path / "m.onnx", kind, ["n", 4], FLOAT, "Cast", to=FLOAT)
    answer = single(ort, path, {} if array is None else {"x": array})
    assert answer["ok"], answer
    assert answer["opened"]["inputs"][0][3] != "given" or array is not None


def test_outputs_that_are_not_as_declared_are_bound_anew(fresh_ort: Ask, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(
        path, [helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, ["n", 4])], [value("y", FLOAT, [1, 4])]
    )
    assert single(fresh_ort, path)["opened"]["binding"] == "kept"
    answer = single(fresh_ort, path, shapes={"x": [4, 4]})
    assert answer["ok"], answer
    assert answer["count"] == 3
    assert answer["opened"]["binding"] == "renewed"
    race = {"rounds": 3, "round_s": 0.0, "min_runs": 3, "warmup_runs": 2, "warmup_s": 0.0, "most_s": 5.0}
    both = fresh_ort("race", a=request(path), b=request(path, shapes={"x": [4, 4]}), **race)
    assert both["opened_a"]["binding"] == both["opened_b"]["binding"] == "renewed"  # a fair race


def test_an_output_that_changes_its_shape_from_run_to_run(fresh_ort: Ask, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["r"], low=-1.0, high=1.0),
        helper.make_node("Relu", ["r"], ["p"]),
        helper.make_node("NonZero", ["p"], ["y"]),
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, [value("x", FLOAT, [64])], [value("y", INT64, [1, "k"])])
    answer = fresh_ort("single", **request(path), **{**SINGLE, "min_runs": 50})
    assert answer["ok"], answer
    assert answer["count"] == 50
    assert answer["opened"]["binding"] == "renewed"


def test_what_cannot_be_bound_is_handed_over(fresh_ort: Ask, tmp_path: Path) -> None:
    path = identity(tmp_path / "m.onnx", TensorProto.STRING, [2])
    assert single(fresh_ort, path)["opened"]["binding"] == "none"
    assert fresh_ort("memory", **request(path))["ok"]
    assert fresh_ort("throughput", **request(path), streams=2, seconds=0.01)["ok"]


def test_sequences_and_optional_values(ort: Ask, tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", FLOAT, None)
    path = write_onnx(
        tmp_path / "m.onnx", [helper.make_node("SequenceLength", ["x"], ["y"])], [sequence], [value("y", INT64, [])]
    )
    refused = single(ort, path)
    assert "input x is of type seq(tensor(float))" in refused["error"]
    assert "--input x=FILE.npy" in refused["hint"]
    assert single(ort, path, {"x": np.zeros((3, 2), np.float32)})["ok"]
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2]))
    maybe = helper.make_value_info("x", kind)
    node = helper.make_node("OptionalHasElement", ["x"], ["y"])
    path = write_onnx(tmp_path / "o.onnx", [node], [maybe], [value("y", TensorProto.BOOL, [])], opset=18)
    assert single(ort, path)["opened"]["inputs"][0][3] == "nothing"
    assert single(ort, path, {"x": np.zeros(2, np.float32)})["ok"]


def test_sizes_that_are_proposed_run(ort: Ask, tmp_path: Path) -> None:
    """A window of 320 samples and no other, and a state whose unnamed axis is a batch: as voice detectors have them."""
    nodes = [
        helper.make_node("Reshape", ["x", "five"], ["frames"]),
        helper.make_node("Reshape", ["state", "two"], ["s"]),
        helper.make_node("ReduceSum", ["frames"], ["t"], keepdims=0),
        helper.make_node("Add", ["t", "s"], ["y"]),
    ]
    weights = {"five": np.array([5, 64]), "two": np.array([2, 8])}
    inputs = [value("x", FLOAT, ["batch", "samples"]), value("state", FLOAT, [2, None, 8]), value("sr", INT64, [])]
    path = write_onnx(tmp_path / "m.onnx", nodes, inputs, [value("y", FLOAT, None)], weights)
    asked = single(ort, path, prefix="m.onnx:")
    assert (
        "axes of no fixed size (samples): the inputs are x [batch, samples], state [2, ?, 8], sr (one value)"
        in (asked["error"])
    )
    assert (
        asked["hint"] == "these sizes run (yours may be others): type --shape m.onnx:x=1x320 --shape m.onnx:state=2x1x8"
    )
    assert single(ort, path, shapes={"x": [1, 320], "state": [2, 1, 8]})["ok"]


def test_one_axis_name_has_one_size(ort: Ask, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["ids", "mask"], ["y"])]
    inputs = [value(name, INT64, ["batch", "length"]) for name in ("ids", "mask")]
    path = write_onnx(tmp_path / "m.onnx", nodes, inputs, [value("y", INT64, None)])
    for known in ({"shapes": {"ids": [2, 7]}}, {"shapes": {"length": [7], "batch": [2]}}):
        answer = single(ort, path, **known)
        assert [each[1] for each in answer["opened"]["inputs"]] == [[2, 7], [2, 7]]
    assert single(ort, path, {"mask": np.zeros((2, 7), np.int64)})["opened"]["inputs"][0][1] == [2, 7]


def test_sizes_none_of_which_runs_are_not_called_running(ort: Ask, tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "odd"], ["y"])]
    weights = {"odd": np.array([7919, 13])}
    path = write_onnx(tmp_path / "m.onnx", nodes, [value("x", FLOAT, [1, "k"])], [value("y", FLOAT, None)], weights)
    assert single(ort, path)["hint"].startswith("give them, like --shape x=1x16 (no sizes that were tried run: ")


def test_an_empty_axis_is_no_open_one(ort: Ask, tmp_path: Path) -> None:
    path = identity(tmp_path / "m.onnx", FLOAT, [2, 0, 4])
    assert single(ort, path)["opened"]["inputs"][0][1] == [2, 0, 4]


def test_signatures_are_named_and_chosen(litert: Ask, tmp_path: Path) -> None:
    path = write_signatures(tmp_path / "m.tflite")
    first = single(litert, path)["opened"]
    assert (first["signature"], first["signatures"]) == ("encode", ["decode", "encode"])
    assert first["inputs"][0][:2] == ["encode_x", [1, 4]]
    second = single(litert, path, signature="decode")["opened"]
    assert (second["signature"], second["inputs"][0][:2]) == ("decode", ["in", [1, 5]])
    assert single(litert, path, {"in": "3"})["opened"]["inputs"][0][3] == "given"  # the signature's name of it
    assert single(litert, path, {"in": "3"}, signature="decode")["opened"]["inputs"][0][3] == "given"
    assert "no signature 'train'; it has decode, encode" in single(litert, path, signature="train")["error"]


def test_an_onnx_file_has_no_signatures(ort: Ask, tmp_path: Path) -> None:
    answer = single(ort, identity(tmp_path / "m.onnx", FLOAT, [1]), signature="main")
    assert (answer["kind"], answer["hint"]) == ("refused", "leave out --signature")


#: Modules of cases inside the onnx wheel, one kind each; benchmarks/onnx_nodes.py runs all.
KINDS = ("loop", "nonzero", "resize", "reshape", "stringnormalizer", "where", "topk", "gather", "isnan", "shape")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_some_of_the_cases_of_onnx_itself(ort: Ask, tmp_path: Path) -> None:
    """Whatever plain ONNX Runtime runs with a case's inputs, the probe runs: of each kind a few."""
    from onnx.backend.test.case import node

    ran: Counter[str] = Counter()
    for kind in KINDS:
        before = len(node._NodeTestCases)
        importlib.import_module(f"onnx.backend.test.case.node.{kind}")
        for index, case in enumerate(node._NodeTestCases[before:][:6]):
            path = tmp_path / f"{kind}{index}.onnx"
            path.write_bytes(case.model.SerializeToString())
            names = (each.name for each in case.model.graph.input)
            inputs = dict(zip(names, map(np.asarray, case.data_sets[0][0]), strict=False))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            try:
                onnxruntime.InferenceSession(path, options).run(None, inputs)
            except Exception:  # noqa: BLE001 - of a type that its Python interface does not take, for example
                continue
            answer = single(ort, path, {n: a.astype(str) if a.dtype.kind == "O" else a for n, a in inputs.items()})
            assert answer["ok"], (case.name, answer)
            ran[kind] += 1
    assert len(ran) == len(KINDS), ran

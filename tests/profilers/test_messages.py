"""What runtimes say of files that they cannot use, and what a person reads of it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from fakes.tiny_models import write_mlp
from onnx import TensorProto, helper

from edgeprune.core.clock import Deadline
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.runtimes import RuntimeName
from edgeprune.devices.channel import ChannelError
from edgeprune.devices.local import LocalSession
from edgeprune.probe.probe import _one_line
from edgeprune.profilers import versions
from edgeprune.profilers.client import ProbeClient, probe, push
from edgeprune.profilers.tiny_models import TINY_MODELS

#: As onnxruntime 1.16.3 raised it on a file of opset 20.
OLD_ORT = (
    "[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/edgeprune-x/3f.onnx failed:/onnxruntime_src/onnxruntime/core/"
    "graph/model.cc:149 onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&, const "
    "IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) "
    "Unsupported model IR version: 10, max supported IR version: 9\n"
)
#: As tflite_runtime 2.14.0 raised it: everything twice, sentences without a space between them.
OLD_TFLITE = (
    "Encountered unresolved custom op: MyOp.\nSee instructions: https://www.tensorflow.org/lite/guide/ops_custom Node "
    "number 1 (MyOp) failed to prepare."
) * 2


class Fail(Exception):  # noqa: N818 - the name that is told
    """As onnxruntime's own is called."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Fail(OLD_ORT), "Unsupported model IR version: 10, max supported IR version: 9"),
        (
            RuntimeError(OLD_TFLITE),
            "Encountered unresolved custom op: MyOp. Node number 1 (MyOp) failed to prepare.",
        ),
        (
            Fail(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /core/x.cc:12 static "
                "std::unique_ptr<int> onnxruntime::(anonymous namespace)::Make(void (*)(int), const T&) const [with T "
                "= float] left == right was false. 3 (three) is not 4"
            ),
            "Exception during initialization: left == right was false. 3 (three) is not 4",
        ),
        (
            Fail("x.cc:7 onnxruntime::Cut(int, the message ends here"),
            "onnxruntime::Cut(int, the message ends here",
        ),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: no message"),
        (ValueError("a node called /conv1/Conv has 3 inputs"), "a node called /conv1/Conv has 3 inputs"),
        (Fail("cannot read /work/folder/net.onnx.data"), "Fail: cannot read net.onnx.data"),
    ],
)
def test_a_message_without_what_only_its_programmers_read(error: Exception, says: str) -> None:
    assert _one_line(error, "/work/folder") == says


def test_a_long_message_keeps_its_end() -> None:
    said = _one_line(Fail("[ONNXRuntimeError] : 1 : FAIL : " + "so it goes " * 200 + "99, not 11"))
    assert len(said) == 500
    assert said.startswith("so it goes")
    assert said.endswith("so it goes 99, not 11")


def changed(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = write_mlp(folder / "net.onnx")
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
        return path

    return write


def later_format(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def later_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def own_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Fancy", "com.mine"
    model.opset_import.append(helper.make_opsetid("com.mine", 1))


def wrong_at_run(folder: Path) -> Path:
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["y"])]
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    gives = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [3, 5])
    graph = helper.make_graph(nodes, "g", takes, gives, [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def cut_onnx(folder: Path) -> Path:
    path = write_mlp(folder / "net.onnx")
    path.write_bytes(path.read_bytes()[:500])
    return path


def changed_lite(change: Callable[[schema.ModelT], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = schema.ModelT.InitFromPackedBuf(TINY_MODELS["litert"].read_bytes(), 0)
        change(model)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        (folder / "net.tflite").write_bytes(bytes(builder.Output()))
        return folder / "net.tflite"

    return write


def custom_operator(model: schema.ModelT) -> None:
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"MyOp"


def later_operator(model: schema.ModelT) -> None:
    model.operatorCodes[0].version = 99


def unknown_operator(model: schema.ModelT) -> None:
    model.operatorCodes[0].builtinCode = 250


def cut_lite(folder: Path) -> Path:
    content = TINY_MODELS["litert"].read_bytes()
    # The offset of the root table lies beyond the end.
    (folder / "net.tflite").write_bytes(struct.pack("<I", len(content)) + content[4:40])
    return folder / "net.tflite"


@pytest.fixture(scope="module")
def probes(request: pytest.FixtureRequest) -> Iterator[dict[RuntimeName, tuple[LocalSession, ProbeClient]]]:
    from edgeprune.devices import find_device, open_session

    with open_session(find_device("local")) as session:
        clients: dict[RuntimeName, tuple[LocalSession, ProbeClient]] = {}
        with (
            probe(session, MeasureSettings("onnxruntime")) as onnxruntime,
            probe(session, MeasureSettings("litert")) as litert,
        ):
            for client in (onnxruntime, litert):
                client.hello([], Deadline.after(60))
            clients = {"onnxruntime": (session, onnxruntime), "litert": (session, litert)}
            yield clients


@pytest.mark.parametrize(
    ("write", "says", "hint"),
    [
        (
            changed(later_format),
            r"open the model: Unsupported model IR version: 99, max .*: (\d+)$",
            "export the file with IR",
        ),
        (
            changed(later_opset),
            r"open the model: Unsupported opset 99 of ai.onnx, max .*: (\d+)$",
            "export the file with op",
        ),
        (
            changed(own_operator),
            r"open the model: .*com.mine:Fancy\(-1\) is not a registered function/op$",
            "not part of",
        ),
        (wrong_at_run, r"run the model: .*Reshape.*Input shape:\{1,8\}, requested shape:\{3,5\}$", ""),
        (cut_onnx, r"open the model: Protobuf parsing failed", ""),
        (
            changed_lite(custom_operator),
            r"open the model: Encountered unresolved custom op: MyOp\. Node number",
            "not part of",
        ),
        (
            changed_lite(later_operator),
            r"open the model: Didn't find op for .* '\w+' version '99'",
            "newer ai-edge-litert",
        ),
        (changed_lite(unknown_operator), r"open the model: Op builtin_code out of range: 250", "newer ai-edge-litert"),
        (cut_lite, r"open the model: The model is not a valid Flatbuffer", ""),
    ],
)
def test_real_runtimes_name_themselves_and_the_numbers(
    write: Callable[[Path], Path],
    says: str,
    hint: str,
    tmp_path: Path,
    probes: dict[RuntimeName, tuple[LocalSession, ProbeClient]],
) -> None:
    path = write(tmp_path)
    runtime: RuntimeName = "onnxruntime" if path.suffix == ".onnx" else "litert"
    session, client = probes[runtime]
    with pytest.raises(ChannelError) as caught:
        client.load("net", push(session, path), Deadline.after(60))
    message = caught.value.message
    assert re.search(says, message), message
    package = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}[runtime]
    assert message.startswith(package + " ")
    assert message.split()[1][0].isdigit()
    assert not any(part in message for part in ("/", "::", "ONNXRuntimeError", ".cc")) or "function/op" in message
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_the_release_that_opens_a_file_is_named() -> None:
    said = "onnxruntime 1.16.3 cannot open the model: Unsupported model IR version: 10, max supported IR version: 9"
    assert versions.advice(said).startswith("install onnxruntime>=1.18 there, or export the file with IR version 9")
    said = "Unsupported opset 23 of ai.onnx, max supported opset: 19"
    assert versions.advice(said).startswith("install onnxruntime>=1.23 there, or export the file with opset 19")
    assert versions.advice("Protobuf parsing failed.") == ""


def test_this_releases_own_limits_are_in_the_tables(
    tmp_path: Path, probes: dict[RuntimeName, tuple[LocalSession, ProbeClient]]
) -> None:
    """With a new onnxruntime that opens more, the tables must learn of it, or they would deny that it does."""
    session, client = probes["onnxruntime"]
    for change, table in ((later_format, versions.FIRST_FOR_IR), (later_opset, versions.FIRST_FOR_OPSET)):
        with pytest.raises(ChannelError) as caught:
            client.load("net", push(session, changed(change)(tmp_path)), Deadline.after(60))
        assert int(caught.value.message.rpartition(" ")[2]) == max(table)
    assert np.all(np.diff(sorted(versions.FIRST_FOR_OPSET)) == 1)

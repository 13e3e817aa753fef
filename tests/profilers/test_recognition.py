from __future__ import annotations

from pathlib import Path

import pytest
from fakes.foreign import FLOAT, value, write_external, write_onnx, write_signatures
from fakes.tiny_models import write_mlp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.profilers.external import external_files
from edgeprune.profilers.recognition import check_content, runtime_of

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.onnx", LFS, "a.onnx is not an ONNX model: this is a git-lfs pointer; type: git lfs pull"),
        ("a.tflite", LFS, "a.tflite is not a TFLite model: this is a git-lfs pointer"),
        ("a.onnx", b"\n<!DOCTYPE html><html>Not Found</html>", "this is a web page; download the file itself"),
        ("a.onnx", b'<?xml version="1.0"?><Error/>', "this is an XML document"),
        ("a.onnx", b"", "a.onnx is empty, expected an ONNX model"),
        ("a.onnx", b'{"error": "not found"}', "this is a JSON document"),
        ("a.onnx", b"PK\x03\x04" + bytes(50), "this is a zip archive"),
        ("a.onnx", b"\x1f\x8b\x08" + bytes(50), "this is a gzip archive"),
        ("a.tflite", b"\x89HDF\r\n\x1a\n" + bytes(50), "this is an HDF5 file"),
        ("a.onnx", b"\x80\x02}q\x00.", "this is a Python pickle"),
        ("a.onnx", (50).to_bytes(8, "little") + b'{"w":{}}', "this is a file of weights (safetensors)"),
        ("a.onnx", b"no model", "a.onnx is not an ONNX model: its content is of no kind that is known here"),
        ("a.onnx", b"\x08\x07", "a.onnx is an ONNX model that is damaged: it holds no graph"),
        ("a.pb", b"\x08\x07", "expected a .onnx, .ort or .tflite file, got"),
    ],
)
def test_what_is_no_model_is_told_from_its_content(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        runtime_of(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_under_the_wrong_name(tmp_path: Path) -> None:
    for made, name, says in (
        (
            write_signatures(tmp_path / "m.tflite"),
            "b.onnx",
            "this is a TFLite model; name it by its content: mv b.onnx",
        ),
        (
            write_mlp(tmp_path / "m.onnx"),
            "b.tflite",
            "this is an ONNX model; name it by its content: mv b.tflite b.onnx",
        ),
        (write_mlp(tmp_path / "m.onnx"), "b.ort", "this is an ONNX model"),
    ):
        (tmp_path / name).write_bytes(made.read_bytes())
        with pytest.raises(ModelError) as error:
            runtime_of(tmp_path / name)
        assert says in str(error.value)


def test_a_model_that_is_cut_off_anywhere_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    whole = write_mlp(tmp_path / "m.onnx").read_bytes()
    for size in (3, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"cut.onnx is an ONNX model that is damaged: it (ends|holds no graph)"):
            check_content(path)
    path = tmp_path / "cut.tflite"
    whole = write_signatures(tmp_path / "m.tflite").read_bytes()
    for size in (9, 60, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"cut.tflite is a TFLite model that is damaged: it"):
            check_content(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_changed_bytes_raise_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    for made in (write_mlp(tmp_path / "m.onnx", (4, 2)), write_signatures(tmp_path / "m.tflite")):
        content = bytearray(made.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        made.write_bytes(content)
        try:
            runtime_of(made)
            external_files(made)
        except ModelError:
            pass


def test_weights_outside_are_found(tmp_path: Path) -> None:
    path = write_external(tmp_path / "m.onnx", "weights/w.bin")
    assert external_files(path) == {"weights/w.bin": tmp_path / "weights" / "w.bin"}
    (tmp_path / "weights" / "w.bin").unlink()
    with pytest.raises(ModelError) as error:
        external_files(path)
    assert str(error.value) == (
        f"m.onnx keeps its weights in weights/w.bin, which does not exist beside it; copy that file to {tmp_path}"
    )


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret", "."])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(bytes(256))
    path = write_external(inside / "m.onnx", "plain.bin")
    path.write_bytes(path.read_bytes().replace(b"plain.bin", location[:9].encode().ljust(9, b"/")))
    if len(location) > 9:
        path = write_external(inside / "m.onnx", location.replace("..", "xx"))
        path.write_bytes(path.read_bytes().replace(location.replace("..", "xx").encode(), location.encode()))
    with pytest.raises(ModelError, match="expected a place in its own folder"):
        external_files(path)


def test_a_model_that_only_speaks_of_a_location_has_no_weights_outside(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node("Relu", ["location"], ["y"])
    write_onnx(path, [node], [value("location", FLOAT, [1])], [value("y", FLOAT, [1])])
    assert external_files(path) == {}

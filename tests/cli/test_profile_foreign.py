"""`edgeprune profile` of files that nobody here wrote: what it says of how they were fed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.foreign import FLOAT, INT64, value, write_external, write_onnx, write_ort, write_signatures
from fakes.tiny_models import write_endless, write_mlp
from onnx import helper

from edgeprune.cli.main import main

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--min-seconds", "0", "--processes", "1", "--quiet")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edgeprune profile ARGUMENTS` in a folder of its own, each memory reading once: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeprune.profilers.fresh._MEMORY_PROCESSES", 1)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["profile", *arguments, *QUICK])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def write_voice(path: Path) -> Path:
    """y = sum(x) + sr, with x (batch, 320) declared open."""
    nodes = [
        helper.make_node("Reshape", ["x", "sizes"], ["frames"]),
        helper.make_node("ReduceSum", ["frames"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sr"], ["rate"], to=FLOAT),
        helper.make_node("Add", ["sum", "rate"], ["y"]),
    ]
    inputs = [value("x", FLOAT, ["batch", "samples"]), value("sr", INT64, [])]
    return write_onnx(path, nodes, inputs, [value("y", FLOAT, [])], {"sizes": np.array([5, 64])})


def test_what_a_file_was_fed_with_is_said(run: Run, tmp_path: Path) -> None:
    write_voice(tmp_path / "voice.onnx")
    write_external(tmp_path / "big.onnx", "big.onnx.data")
    write_signatures(tmp_path / "two.tflite")
    code, _, err = run("voice.onnx")
    assert code == 4
    assert "the inputs are x [batch, samples], sr (one value)" in err
    proposed = shlex.split(err.rpartition("type ")[2])
    assert proposed == ["--shape", "x=1x320"]
    code, out, err = run("voice.onnx", "big.onnx", "two.tflite", "--shape", "voice.onnx:x=1x320")
    assert code == 0, err
    assert "voice.onnx: input sr (int64) made up as 0; give --input voice.onnx:sr=VALUE" in out
    own = (tmp_path / "big.onnx").stat().st_size
    assert f"big.onnx: its size counts {own} B of its own and the weights in big.onnx.data (256 B)" in out
    assert "two.tflite: signature encode was measured; --signature two.tflite:NAME measures another: decode" in out


def test_what_was_given_is_in_the_json(run: Run, tmp_path: Path) -> None:
    write_voice(tmp_path / "voice.onnx")
    write_external(tmp_path / "big.onnx", "big.onnx.data")
    np.save(tmp_path / "x.npy", np.zeros((1, 320), np.float32))
    files = ("voice.onnx", "big.onnx", "--input", "sr=16000")
    code, out, err = run(*files, "--input", "voice.onnx:x=x.npy", "--json")
    assert code == 0, err
    voice, big = json.loads(out)["profiles"]
    assert voice["inputs"] == [
        {"name": "x", "shape": [1, 320], "dtype": "float32", "how": "given"},
        {"name": "sr", "shape": [], "dtype": "int64", "how": "given"},
    ]
    assert (voice["binding"], voice["signature"], voice["signatures"]) == ("kept", "", [])
    assert [part["location"] for part in big["external"]] == ["big.onnx.data"]
    assert big["bytes"] == sum((tmp_path / name).stat().st_size for name in ("big.onnx", "big.onnx.data"))
    code, _, err = run(*files, "--input", "rate=1", "--shape", "voice.onnx:x=1x320")
    assert code == 2
    assert "no file has an input rate" in err


def test_what_is_no_model_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    write_voice(tmp_path / "voice.onnx")
    (tmp_path / "lfs.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n")
    write_external(tmp_path / "big.onnx", "big.onnx.data")
    (tmp_path / "big.onnx.data").unlink()
    for files, says in (
        (("voice.onnx", "lfs.onnx"), "lfs.onnx is not an ONNX model: this is a git-lfs pointer; type: git lfs pull"),
        (("big.onnx",), "big.onnx keeps its weights in big.onnx.data, which does not exist beside it"),
    ):
        code, out, err = run(*files)
        assert (code, out) == (2, "")
        assert says in err
        assert len(err.splitlines()) == 1


def test_onnxruntimes_own_format_is_measured(run: Run, tmp_path: Path) -> None:
    code, out, err = run(str(write_ort(write_mlp(tmp_path / "net.onnx"))), "--json")
    assert code == 0, err
    (profile,) = json.loads(out)["profiles"]
    assert profile["samples"]
    assert profile["inputs"][0]["name"] == "x"


def test_an_endless_file_ends_soon_and_is_not_tried_again(run: Run, tmp_path: Path) -> None:
    write_endless(tmp_path / "endless.onnx", 2)
    write_mlp(tmp_path / "net.onnx")
    code, out, _ = run("endless.onnx", "net.onnx", "--timeout", "1")
    assert code == 4
    assert "one inference took longer than 1 s" in " ".join(out.split())
    assert "net.onnx" in out

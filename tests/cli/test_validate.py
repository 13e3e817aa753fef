from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.foreign import write_ort
from fakes.tiny_models import write_endless, write_onnx
from onnx import TensorProto, helper

from edgeprune.cli.main import main

Runs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs `edgeprune validate ARGUMENTS` where `two.npz` has images of two pixels: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    y = np.arange(40) % 2
    x = np.eye(2, dtype=np.float32)[y]
    np.savez("two.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["validate", *arguments])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def test_conventions_are_on_the_screen_and_in_the_json(runs: Runs, tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["none", "x"], ["y"], axis=1)]
    shapes = {"x": (TensorProto.FLOAT, [1, 2])}, {"y": (TensorProto.FLOAT, [1, 3])}
    write_onnx(tmp_path / "three.onnx", nodes, *shapes, {"none": np.full((1, 1), -9, np.float32)})
    code, _, err = runs("three.onnx", "--data", "two.npz", "--quiet")
    assert code == 2
    assert "gives 3 numbers an image, the data has 2 classes; where a background class comes first" in err
    code, out, _ = runs("three.onnx", "--data", "two.npz", "--quiet", "--label-offset", "1")
    assert code == 0
    assert "three.onnx on local: 100.00 % right" in out
    assert "images go into x 1x2 (float32), as they come" in out
    assert "the class is read from y: the largest of 3 values, class k is the model's k + 1" in out
    assert "preprocessing tried on 40 training images: of the data 100.00 %, unit 100.00 %" in out
    assert "; of the data is kept, as none is clearly better" in out
    code, out, _ = runs("three.onnx", "--data", "two.npz", "--json", "--label-offset", "1", "--output", "y")
    told = json.loads(out)
    assert (told["accuracy"], told["input"], told["output"], told["batch"]) == (1, "x", "y", 1)
    assert told["preprocessing"] == "of the data"
    assert [(way["preprocessing"], way["images"]) for way in told["tried"]][:2] == [("of the data", 40), ("unit", 40)]
    assert len(told["conventions"]) == 3
    assert told["advice"] == []


def test_an_endless_file_ends_soon(runs: Runs, tmp_path: Path) -> None:
    write_endless(tmp_path / "endless.onnx", 2)
    x, y = np.ones((40, 2), np.float32), np.arange(40) % 2
    np.savez("ones.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    code, out, err = runs("endless.onnx", "--data", "ones.npz", "--preprocessing", "none", "--timeout", "1")
    assert (code, out) == (4, "")
    assert "opening endless.onnx, first image" in err
    last = err.splitlines()[-1]
    assert last.startswith("error: endless.onnx does not run on local: the first example took longer than 1 s;")
    assert last.endswith("where it is only slow there, give --timeout SECONDS")


def test_wrong_words_are_named(runs: Runs, tmp_path: Path) -> None:
    write_endless(tmp_path / "net.onnx", 2)
    code, _, err = runs("net.onnx", "--data", "two.npz", "--preprocessing", "units")
    assert code == 2
    assert "did you mean 'unit'?" in err
    code, _, err = runs("net.onnx", "--data", "two.npz", "--stream", "--quiet")
    assert code == 2
    assert "only .tflite files have variables; leave out --stream" in err


def test_onnxruntimes_own_format(runs: Runs, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    write_onnx(tmp_path / "net.onnx", nodes, {"x": (TensorProto.FLOAT, [1, 2])}, {"y": (TensorProto.FLOAT, [1, 2])})
    write_ort(tmp_path / "net.onnx")
    code, out, err = runs("net.ort", "--data", "two.npz", "--quiet")
    assert code == 0, err
    assert "100.00 % right" in out

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes.tiny_models import write_mlp
from fakes.tiny_tflite import write_tflite
from onnx import helper

from edgeprune.cli.main import main

QUICK = ("--min-seconds", "0", "--processes", "2")
Runs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs `edgeprune ARGUMENTS` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEPRUNE_DATA", raising=False)
    write_mlp(tmp_path / "full.onnx", (64, 256, 128, 10))
    write_mlp(tmp_path / "half.onnx", (64, 128, 64, 10))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def test_two_files_side_by_side(runs: Runs, tmp_path: Path) -> None:
    asked = ("--per-operator", "--throughput", "--csv", "raw.csv", "--histogram", "raw.png")
    # Long enough for a p90.
    quick = ("--processes", "2", "--min-seconds", "0.05")
    code, out, err = runs("profile", "half.onnx", *quick, "--against", "full.onnx", *asked)
    assert code == 0, err
    for word in ("median", "p90", "load", "first run", "heap", "throughput", "half.onnx against full.onnx", "Gemm"):
        assert word in out
    rows = list(csv.DictReader((tmp_path / "raw.csv").read_text().splitlines()))
    assert {row["file"] for row in rows} == {"half.onnx", "full.onnx"}
    assert {row["process"] for row in rows} == {"0", "1"}
    assert (tmp_path / "raw.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_an_interface(runs: Runs) -> None:
    code, out, err = runs("profile", "half.onnx", *QUICK, "--against", "full.onnx", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["schema"] == 1
    assert set(told) == {"schema", "edgeprune", "device", "profiles", "against", "comparisons"}
    half, full = told["profiles"]
    assert half["bytes"] < full["bytes"]
    assert half["unit"] == "s"
    assert len(half["samples"]) == len(half["process"]) == half["count"] >= 2 * 20
    assert len(half["memory_readings"]) == 5
    assert half["peak_bytes"] < full["peak_bytes"]
    assert half["p99"] is None  # 40 runs do not tell
    assert len(half["states"]) == 4
    assert half["verdict"] in {"stable", "noisy", "busy"}
    (only,) = told["comparisons"]
    assert only["memory"] < 1
    assert only["latency"]["low"] <= only["latency"]["value"] <= only["latency"]["high"]


def test_a_refused_file_is_one_line_and_the_others_go_on(runs: Runs, tmp_path: Path) -> None:
    node = helper.make_node("MyOp", ["x"], ["y"], domain="com.acme")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("com.acme", 1)], ir_version=8), "bad.onnx")
    code, out, _ = runs("profile", "bad.onnx", "half.onnx", *QUICK, "--quiet")
    assert code == 4
    assert f"bad.onnx: refused; onnxruntime {onnxruntime.__version__} cannot open the model" in out
    assert "half.onnx: " in out
    code, out, err = runs("profile", "bad.onnx", *QUICK, "--quiet")
    assert (code, out) == (4, "")
    assert err.startswith(
        f"error: bad.onnx cannot be profiled on local: onnxruntime {onnxruntime.__version__} cannot open the model"
    )
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none.onnx",), "none.onnx does not exist"),
        (("half.txt",), "expected a .onnx, .ort or .tflite file, got half.txt; export it first"),
        (("half.onnx", "--shape", "x"), "--shape: expected an input and its sizes, got 'x'; write it like ids=1x16"),
        (("half.onnx", "--shape", "x=0x2"), "--shape"),
        (("half.onnx", "--half-width", "wide"), "--half-width: 'wide' is no share; write it like 2%"),
        (("half.onnx", "--max-seconds", "3"), "give --half-width too"),
        (("half.onnx", "--against", "half.tflite"), "different runtimes"),
        (("half.onnx", "--device", "emulated-rpi4", "--throughput"), "counts instructions"),
        (("half.onnx", "--device", "nowhere"), "unknown device 'nowhere'"),
    ],
)
def test_wrong_usage(runs: Runs, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    (tmp_path / "half.txt").write_bytes(b"")
    write_tflite(tmp_path / "half.tflite")
    code, out, err = runs("profile", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_wrong_shape_is_one_line_with_the_inputs(runs: Runs) -> None:
    code, _, err = runs("profile", "half.onnx", *QUICK, "--quiet", "--shape", "y=1x64")
    assert code == 4
    assert "no input 'y'; the inputs are x [n, 64]" in err


def test_more_processes_for_a_narrow_interval(runs: Runs) -> None:
    code, out, _ = runs("profile", "half.onnx", *QUICK, "--half-width", "0.0001%", "--max-seconds", "4", "--json")
    assert code == 0
    told = json.loads(out)["profiles"][0]
    assert told["interval"]["processes"] + told["rejected"] > 2
    assert told["verdict"] in {"noisy", "busy"}


def test_a_picture_that_cannot_be_written_is_one_line(runs: Runs) -> None:
    code, _, err = runs("profile", "half.onnx", *QUICK, "--quiet", "--histogram", "nowhere/a.png")
    assert code == 2  # and nothing was measured
    assert "cannot write nowhere/a.png" in err


def test_files_of_one_name_are_told_apart(runs: Runs) -> None:
    Path("other").mkdir()
    shutil.copy("half.onnx", "other/half.onnx")
    quick = ("--min-seconds", "0", "--processes", "1")
    code, out, _ = runs("profile", "half.onnx", "other/half.onnx", *quick, "--quiet")
    assert code == 0
    assert "\nother/half.onnx: " in out


@pytest.mark.shared
def test_an_unknown_operator_is_one_clear_line(runs: Runs, shared_data: Path) -> None:
    code, _, err = runs("profile", str(shared_data / "models" / "bad_audio_preprocessor_int8.tflite"), "--quiet")
    assert code == 4
    assert "unresolved custom op: SignalWindow" in err
    assert len(err.splitlines()) == 1


def arrays(path: Path, classes: int = 10) -> str:
    random = np.random.default_rng(0)
    content = {
        "x_train": random.random((60, 1, 8, 8), dtype=np.float32),
        "y_train": np.arange(60) % classes,
        "x_test": random.random((40, 1, 8, 8), dtype=np.float32),
        "y_test": np.arange(40) % classes,
    }
    np.savez(path, **content)
    return str(path)


def test_validate_counts_what_is_right(runs: Runs, tmp_path: Path) -> None:
    arrays(tmp_path / "a.npz")
    code, out, err = runs("validate", "half.onnx", "--data", "a.npz", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["images"] == 40
    assert told["accuracy"] == told["correct"] / 40
    assert told["low"] <= told["accuracy"] <= told["high"]
    assert told["preprocessing"] == "of the data"
    code, out, _ = runs(
        "validate", "half.onnx", "--data", "a.npz", "--images", "20", "--preprocessing", "raw", "--quiet"
    )
    assert code == 0
    assert "of 20 test images" in out


def test_validate_tells_what_does_not_fit(runs: Runs, tmp_path: Path) -> None:
    write_mlp(tmp_path / "other.onnx", (63, 10))
    arrays(tmp_path / "a.npz")
    arrays(tmp_path / "three.npz", classes=3)
    code, _, err = runs("validate", "other.onnx", "--data", "a.npz", "--quiet")
    assert code == 2
    assert "other.onnx takes ?x63, the data has images of 1x8x8" in err
    code, _, err = runs("validate", "half.onnx", "--data", "three.npz", "--quiet")
    assert code == 2
    assert "gives 10 numbers an image, the data has 3 classes" in err


@pytest.mark.shared
def test_validate_lays_channels_last_where_only_that_fits(runs: Runs, tmp_path: Path, shared_data: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (40, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(40) % 10
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    file = shared_data / "models" / "ic_pretrainedResnet_quant.tflite"
    code, out, err = runs("validate", str(file), "--data", "a.npz", "--quiet", "--preprocessing", "raw")
    assert code == 0, err
    assert "layout NHWC" in out

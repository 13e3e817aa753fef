"""A run that ships files at other precisions, one that a device computes wrongly, and bundles of what ships."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

import edgeprune
from edgeprune.artifacts import describe, read_metadata, run_model
from edgeprune.cli.main import cli
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import DeviceError, StorageError, UsageError
from edgeprune.devices import find_device, open_session
from edgeprune.exporters import export_onnx
from edgeprune.pipeline.bundle import bundle_run, verify_bundle
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.validate import _Exam
from edgeprune.report.table import lower_lines, precisions_table, summary_table


@pytest.fixture(scope="module")
def shipped(made_up: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("precision")
    (folder / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))\n"
    )
    return edgeprune.run(RunConfig(
        data="digits", device=made_up, model=f"{folder / 'net.py'}:net", train_epochs=8, episodes=3, search_steps=5,
        finetune_epochs=4, finalists=1, processes=3, precision="int8", max_bytes="0.4x", max_drop=5,
        runs_dir=folder / "runs", name="small",
    ))  # fmt: skip


def test_every_precision_of_every_format_is_a_validated_file(shipped: Any) -> None:
    found = {(each["format"], each["precision"]): each for each in shipped.result["artifacts"]}
    kinds = [(kind, precision) for precision in ("fp32", "int8") for kind in ("onnx", "tflite")]
    assert set(found) == set(kinds)
    for (kind, precision), each in found.items():
        assert each["validated"], each
        path = shipped.folder / each["path"]
        assert path.name == f"model{'' if precision == 'fp32' else f'-{precision}'}.{kind}"
        assert read_metadata(path).get("precision", "fp32") == precision
        assert each["bytes"] == path.stat().st_size
        assert each["baseline_path"] == f"baseline.{kind}"
        assert each["device_scores"]["accuracy"] > each["baseline_device_scores"]["accuracy"] - 0.05
        if precision != "fp32":
            assert each["bytes"] < found[kind, "fp32"]["bytes"]
            assert 0 < each["parity_max_abs"] < 2
            assert each["agreement"] > 0.95


def test_the_file_that_was_asked_for_is_judged(shipped: Any) -> None:
    judged = next(each for each in shipped.result["artifacts"] if each["path"] == shipped.result["budget"]["artifact"])
    assert judged["precision"] != "fp32"
    checks = {check["bound"]: check for check in shipped.result["budget"]["checks"]}
    assert checks["max_bytes"]["value"] == judged["bytes"]
    lost = 100 * (judged["baseline_device_scores"]["accuracy"] - judged["device_scores"]["accuracy"])
    assert checks["max_drop"]["value"] == pytest.approx(lost, abs=1e-4)
    assert checks["above_chance"]["value"] == pytest.approx(100 * judged["device_scores"]["accuracy"])


def test_the_table_has_a_row_for_every_file(shipped: Any) -> None:
    # Costs that are made up have a long unit.
    screen = Console(file=io.StringIO(), width=120)
    table = precisions_table(shipped.result)
    assert table is not None
    screen.print(table)
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    for title in ("ONNX ", "ONNX int8 ", "TFLite ", "TFLite int8 "):
        assert title in said
    # In full: of the float files, and of the one that was judged.
    screen.print(summary_table(shipped.result))
    assert screen.file.getvalue().count("same answers as host") == 3  # type: ignore[attr-defined]
    assert lower_lines(shipped.result) == []


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="--precision: there is no precision 'int4'"):
        RunConfig(precision="fp32,int4")
    assert RunConfig(precision="int8,fp16,int8").precisions == ("fp16", "int8")


def test_a_device_that_computes_something_else_is_found_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    inputs = torch.randn(300, 1, 8, 8)
    file: Artifact = describe(export_onnx(net, inputs[:2], tmp_path / "model-int8.onnx", {}).path)
    exam: Any = SimpleNamespace(
        _asked=[SimpleNamespace(inputs=lambda part: inputs[part])],
        _session=SimpleNamespace(spec=SimpleNamespace(name="board")),
    )
    right = run_model("onnx", file.path, inputs.numpy())
    alike: Any = SimpleNamespace(runtime="onnxruntime")
    # Integers are rounded otherwise here and there.
    rounded = right + np.random.default_rng(0).normal(0, 0.02 * right.std(), right.shape)
    _Exam._check_arithmetic(exam, file, rounded, alike)
    for wrong in (right[::-1], right * 0.7, np.full_like(right, np.nan)):
        with pytest.raises(DeviceError, match=r"onnxruntime on board computes model-int8\.onnx wrongly"):
            _Exam._check_arithmetic(exam, file, wrong, alike)


# --- what goes into an application


def check(folder: Path, python: str = sys.executable, *options: str) -> subprocess.CompletedProcess[str]:
    command = [python, str(folder / "predict.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def bundled(shipped: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "app"
    card = bundle_run(shipped.folder, folder)
    assert card.file == shipped.result["budget"]["artifact"]
    return folder


def test_a_bundle_says_what_the_run_measured(shipped: Any, bundled: Path) -> None:
    said = json.loads((bundled / "model.json").read_text())
    judged = next(each for each in shipped.result["artifacts"] if each["path"] == said["file"])
    assert (said["precision"], said["sha256"], said["bytes"]) == ("int8", judged["sha256"], judged["bytes"])
    assert said["figures"]["scores"] == judged["device_scores"]
    assert said["figures"]["latency"] == judged["latency"]["median"]
    assert said["labels"] == [str(number) for number in range(10)]
    assert said["inputs"][0]["shape"] == [1, 8, 8]
    assert said["outputs"] == [
        {"name": "logits", "shape": [10], "dtype": "float32", "preprocessing": None, "bytes": False}
    ]
    assert {path.name for path in bundled.iterdir()} == {
        said["file"], "model.json", "predict.py", "sample.npz", "expected.npy", "SHA256SUMS",
    }  # fmt: skip
    assert len((bundled / "predict.py").read_text().splitlines()) <= 60


def test_it_answers_by_itself(bundled: Path, tmp_path: Path) -> None:
    found = check(bundled)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("the sample's answer is as expected")
    sample = np.load(bundled / "sample.npz")["input"]
    np.save(tmp_path / "x.npy", sample)
    np.savetxt(tmp_path / "x.csv", sample.reshape(8, 8), delimiter=",")
    Image.fromarray(sample[0].astype(np.uint8)).save(tmp_path / "x.png")
    said = {check(bundled, sys.executable, str(tmp_path / f"x.{kind}")).stdout for kind in ("npy", "csv", "png")}
    assert len(said) == 1
    assert said.pop().startswith("logits {'0': ")


def test_it_answers_by_the_older_runtime(shipped: Any, tmp_path: Path) -> None:
    python = os.environ.get("EDGEPRUNE_TFLITE_PYTHON")
    if not python:
        if os.environ.get("EDGEPRUNE_REQUIRE_ALL"):
            pytest.fail("EDGEPRUNE_TFLITE_PYTHON names no interpreter that has tflite-runtime")
        pytest.skip("no interpreter with tflite-runtime: name it in EDGEPRUNE_TFLITE_PYTHON")
    bundle_run(shipped.folder, tmp_path / "app", "tflite", "int8")
    found = check(tmp_path / "app", python)
    assert (found.returncode, found.stdout[:40]) == (0, "the sample's answer is as expected: off "), found.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_byte_anywhere_is_found(shipped: Any, packed: bool, tmp_path: Path) -> None:
    out = tmp_path / ("app.zip" if packed else "app")
    bundle_run(shipped.folder, out)
    with open_session(find_device("local")) as session:
        assert verify_bundle(out, session)[1] < 1e-5
        for path in [out] * 5 if packed else sorted(out.iterdir()):
            data = path.read_bytes()
            place = random.Random(path.name).randrange(len(data))
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises((StorageError, UsageError)):
                verify_bundle(out, session)
            path.write_bytes(data)
        if not packed:
            (out / "sample.npz").unlink()
            with pytest.raises(StorageError, match=r"sample\.npz is missing"):
                verify_bundle(out, session)


def test_the_same_run_makes_the_same_bundle(shipped: Any, tmp_path: Path) -> None:
    for name in ("one.zip", "other.zip"):
        bundle_run(shipped.folder, tmp_path / name, "onnx", "fp32")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_what_cannot_be_bundled_is_one_line(shipped: Any, tmp_path: Path) -> None:
    def said(*options: str) -> str:
        found = CliRunner().invoke(cli, ["bundle", *options])
        assert isinstance(found.exception, UsageError), found.output
        return str(found.exception)

    (tmp_path / "there").mkdir()
    assert "is there already" in said(str(shipped.folder), "--out", str(tmp_path / "there"))
    assert "it has --format onnx --precision fp32" in said(
        str(shipped.folder), "--out", str(tmp_path / "app"), "--precision", "fp16"
    )
    assert "holds no finished run" in said(str(tmp_path), "--out", str(tmp_path / "app"))
    assert "is no bundle" in said("verify", str(tmp_path))
    assert not (tmp_path / "app").exists()


def test_a_wrong_answer_is_told_from_a_good_one(shipped: Any, tmp_path: Path) -> None:
    out = tmp_path / "app"
    bundle_run(shipped.folder, out)
    # Somebody puts another model there, and the sums right.
    expected = np.load(out / "expected.npy")
    np.save(out / "expected.npy", expected + 10)
    names = [line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()]
    sums = "".join(f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (out / "SHA256SUMS").write_text(sums)
    assert check(out).returncode == 1
    with open_session(find_device("local")) as session, pytest.raises(DeviceError, match="answers its sample wrongly"):
        verify_bundle(out, session)

"""A network's files without pruning: the same proofs, and what is wrong with one is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeprune.artifacts import read_metadata
from edgeprune.cli.main import cli
from edgeprune.core.errors import UsageError
from edgeprune.devices import find_device, open_session
from edgeprune.pipeline import validate as validating
from edgeprune.pipeline.bundle import bundle_run, verify_bundle

#: Nothing in it can be pruned.
NET = """import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def files(made_up: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("export")
    (folder / "net.py").write_text(NET)
    return exported(folder, made_up, "--precision", "fp32,int8", "--max-drop", "4"), folder / "files"


def exported(folder: Path, device: str, *more: str) -> Result:
    arguments = [
        "export", f"{folder / 'net.py'}:net", "--device", device, "--train-epochs", "12", "--processes", "3",
        "--out", str(folder / "files"), "--quiet", *more,
    ]  # fmt: skip
    return CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)


@pytest.mark.soak
def test_every_file_is_made_and_proven(files: tuple[Result, Path]) -> None:
    result, folder = files
    assert result.return_value == 0, result.output
    names = {path.name for path in folder.iterdir()}
    models = {"model.onnx", "model.tflite", "model-int8.onnx", "model-int8.tflite"}
    assert names == {*models, "sample.npz", "export.json"}
    found = json.loads((folder / "export.json").read_text())
    assert found["met"]
    for each in found["artifacts"]:
        assert each["validated"], each
        assert each["device_scores"]["accuracy"] > 0.8
        assert each["baseline_path"] == f"model.{each['format']}"
        assert read_metadata(folder / each["path"])["kept_inputs"] is None
    assert {each["path"] for each in found["lost"]} == models
    # What is recommended is of the runtime that was measured.
    assert found["recommended"].endswith(".onnx")
    assert found["recommended"] in result.output


@pytest.mark.soak
def test_a_bundle_is_made_of_it(files: tuple[Result, Path], made_up: str, tmp_path: Path) -> None:
    card = bundle_run(files[1], tmp_path / "app", "tflite", "int8")
    assert (card.file, card.precision, len(card.labels)) == ("model-int8.tflite", "int8", 10)
    with open_session(find_device(made_up)) as session:
        assert verify_bundle(tmp_path / "app", session)[1] <= card.sample.tolerance
    assert (
        bundle_run(files[1], tmp_path / "other").file
        == json.loads((files[1] / "export.json").read_text())["recommended"]
    )


def test_a_folder_that_is_there_is_not_touched(made_up: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "files").mkdir()
    with pytest.raises(UsageError, match="files is there already"):
        exported(tmp_path, made_up)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["files", "net.py"]


def test_a_file_that_loses_too_much_is_said(made_up: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(NET)
    real = validating.predict_on_device

    def worse(session: Any, settings: Any, file: Path, *rest: Any, **more: Any) -> Any:
        answers = real(session, settings, file, *rest, **more)
        # Every third answer is another one.
        if "int8" in file.name:
            answers[::3] = answers[::3, ::-1]
        return answers

    monkeypatch.setattr(validating, "predict_on_device", worse)
    monkeypatch.setattr(validating._Exam, "_check_arithmetic", lambda *_: None)
    result = exported(tmp_path, made_up, "--precision", "int8", "--formats", "onnx")
    assert result.return_value == 3
    assert "NOT MET  model-int8.onnx" in result.output
    assert json.loads((tmp_path / "files" / "export.json").read_text())["recommended"] == "model.onnx"


def test_what_cannot_be_leaves_nothing(made_up: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    with pytest.raises(UsageError, match="no precision 'int4'"):
        exported(tmp_path, made_up, "--precision", "int4")
    with pytest.raises(UsageError, match="does not exist"):
        exported(tmp_path, made_up, "--data", str(tmp_path / "missing.npz"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]

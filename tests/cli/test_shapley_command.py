"""`edgeprune shapley` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeprune.cli.main import main


def test_the_command_from_data_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["shapley", "--permutations", "5", "--finetune-epochs", "2", "--keep", "0.5", "--out", "here"])
    shown = capsys.readouterr()
    assert ended.value.code == 0, shown.err
    files = {path.name for path in (tmp_path / "here").iterdir()}
    listed = {Path(line).name for line in shown.out.splitlines()[1:]}
    assert listed == {"model.onnx", "model.tflite", "shapley.json", *(f"{n}.png" for n in
                      ("coalitions", "values", "network", "accuracy"))}  # fmt: skip
    assert listed <= files
    assert "not done here" in shown.err
    result = json.loads((tmp_path / "here" / "shapley.json").read_text())
    assert result["further_compression"] is None
    assert {item["path"] for item in result["artifacts"]} == {"model.onnx", "model.tflite"}
    assert all(item["bytes"] < item["unpruned_bytes"] for item in result["artifacts"])
    session = onnxruntime.InferenceSession(tmp_path / "here" / "model.onnx")
    feed = {session.get_inputs()[0].name: np.zeros((1, 1, 8, 8), np.float32)}
    assert session.run(None, feed)[0].shape == (1, 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--layer", "fc9"], "layer 'fc9' cannot be pruned; did you mean 'fc2'?"),
        (["--layer", "fc3"], "layer 'fc3' cannot be pruned"),
        (["--model", "mlp-32"], "unknown model 'mlp-32'; did you mean 'mlp-32-16'?"),
        (["--data", "minst"], "unknown data set 'minst'"),
        (["--keep", "0"], "--keep must be between 0 and 1"),
        (["--out", "."], ". exists; choose another --out"),
        (["--permutation", "0"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["shapley", "--quiet", *arguments])
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.err.startswith(f"error: {says}"), shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))

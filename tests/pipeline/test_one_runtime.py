"""A device that has LiteRT's predecessor and nothing else, as 32-bit boards do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import edgeprune
from edgeprune.core.session import DeviceSpec
from edgeprune.report.table import summary_table


@pytest.mark.soak
def test_a_format_without_a_runtime_is_not_validated_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = os.environ.get("EDGEPRUNE_TFLITE_PYTHON")
    if not python:
        pytest.skip("EDGEPRUNE_TFLITE_PYTHON names no Python with numpy < 2 and tflite-runtime; .ci/run makes one")
    board = DeviceSpec("board", "local", python=python, runtime="litert")
    monkeypatch.setattr("edgeprune.pipeline.run.find_device", lambda _: board)
    config = edgeprune.RunConfig(
        device="board", runs_dir=tmp_path, episodes=4, train_epochs=3, finetune_epochs=1, finalists=1, processes=3
    )
    result = edgeprune.run(config).result
    onnx, tflite = result["artifacts"]
    assert (onnx["validated"], tflite["validated"]) == (False, True)
    assert "no onnxruntime" in onnx["why_not"]
    assert tflite["agreement"] == 1.0
    assert result["budget"]["artifact"] == "model.tflite"
    assert summary_table(result).row_count

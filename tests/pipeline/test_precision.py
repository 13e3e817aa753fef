"""A run that ships files at other precisions, and what is done of one that a device computes wrongly."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import edgeprune
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.exporters import describe, export_onnx, read_metadata, run_model
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.validate import _Exam
from edgeprune.report.table import left_out_lines, precisions_table, summary_table


@pytest.fixture(scope="module")
def shipped(made_up: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("precision")
    (folder / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))\n"
    )
    return edgeprune.run(RunConfig(
        data="digits", device=made_up, model=f"{folder / 'net.py'}:net", train_epochs=8, episodes=3, search_steps=5,
        finetune_epochs=4, finalists=1, processes=3, precision="int8,int8-dynamic", max_bytes="0.4x", max_drop=5,
        runs_dir=folder / "runs", name="small",
    ))  # fmt: skip


def test_every_precision_of_every_format_is_a_validated_file(shipped: Any) -> None:
    found = {(each["format"], each["precision"]): each for each in shipped.result["artifacts"]}
    kinds = [(kind, precision) for precision in ("fp32", "int8", "int8-dynamic") for kind in ("onnx", "tflite")]
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
    for title in ("ONNX ", "ONNX int8 ", "ONNX int8-dynamic", "TFLite ", "TFLite int8 ", "TFLite int8-dynamic"):
        assert title in said
    # In full: of the float files, and of the one that was judged.
    screen.print(summary_table(shipped.result))
    assert screen.file.getvalue().count("same answers as host") == 3  # type: ignore[attr-defined]
    assert left_out_lines(shipped.result) == []


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

"""What is tried before anything long: every format is exported and run on the device, untrained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.old_onnxruntime import write_old_python

import edgeprune
from edgeprune.artifacts import describe
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import DeviceError, ExportError, ModelError, UsageError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Silent
from edgeprune.core.session import DeviceSpec
from edgeprune.core.store import RunFolder
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.devices import find_device, open_session
from edgeprune.exporters import EXPORTERS
from edgeprune.models.source import make_model
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.export import NotExported, export_all
from edgeprune.pipeline.prepare import prepare
from edgeprune.pipeline.rehearse import Shipped, rehearse
from edgeprune.report.table import summary_table
from edgeprune.training import fit
from edgeprune.training.batches import Batches

#: Nothing is scaled.
PLAIN = Preprocessing(1.0, (0.0,), (1.0,))

NETWORKS = """
import torch
from torch import nn

def body(*layers):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), *layers, nn.Linear(12, 10)
    )

class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x, dim=-1).real

class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.token = body(), nn.Parameter(torch.zeros(1, 10))
    def forward(self, x):
        return self.body(x) + self.token.expand(int(x.shape[0]), -1)

class Helped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = body()
    def forward(self, x):
        answer = self.body(x)
        return (answer, answer) if self.training else answer

class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.LocalResponseNorm(3)
        self.second, self.out = nn.Conv2d(8, 8, 3, stride=4, padding=1), nn.Linear(32, 10)
    def forward(self, x):
        return self.out(torch.relu(self.second(self.norm(torch.relu(self.first(x))))).flatten(1))

def plain(): return body()
def spectrum(): return body(Spectrum())
def bessel(): return body(Bessel())
def counted(): return Counted()
def helped(): return Helped()
def normed(): return Normed()
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETWORKS)
    return tmp_path / "nets.py"


@pytest.fixture
def run(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr("edgeprune.pipeline.possible.DEFAULT_NCR", 1.2)

    def go(function: str, **settings: Any) -> dict[str, Any]:
        few: dict[str, Any] = {
            "episodes": 3, "train_epochs": 1, "finetune_epochs": 1, "finalists": 1, "processes": 3, "max_drop": 100.0,
            "calibration_images": 200, "search_steps": 0,
        }  # fmt: skip
        config = RunConfig(model=f"{nets}:{function}", runs_dir=tmp_path / "runs", name="tried", **few | settings)
        edgeprune.run(config)
        told: dict[str, Any] = json.loads((tmp_path / "runs" / "tried" / "result.json").read_text())
        return told

    return go


@pytest.fixture
def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(*_: object, **__: object) -> None:
        raise AssertionError("it was trained first")

    monkeypatch.setattr("edgeprune.pipeline.baseline.train", trained)
    assert fit.train is not trained


@pytest.mark.parametrize(
    ("function", "settings", "says"),
    [
        (
            "spectrum",
            {"runtime": "litert"},
            r"TFLite: .*complex.* \(at aten\.\w+.*\); type --runtime onnxruntime, for which ONNX",
        ),
        (
            "counted",
            {},
            r"ONNX: the batch dimension was frozen; .*x\.shape\[0\].* or type --runtime litert, for which TFLite",
        ),
        ("counted", {"formats": "onnx"}, r"ONNX: the batch dimension was frozen; take .* not as a number$"),
        ("bessel", {}, r"ONNX: .*bessel_j0.*; cannot export to TFLite: .*bessel_j0"),
        ("helped", {}, r"while training, the model gives a tuple of 2; expected one tensor of shape \(2, 10\)"),
    ],
)
def test_what_cannot_work_is_said_before_training(
    function: str,
    settings: dict[str, Any],
    says: str,
    run: Callable[..., dict[str, Any]],
    never_trained: None,
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        run(function, **settings)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.soak
def test_the_run_goes_on_with_the_format_that_works(
    run: Callable[..., dict[str, Any]], made_up: str, tmp_path: Path
) -> None:
    result = run("spectrum", device=made_up)
    onnx, tflite = result["artifacts"]
    assert (onnx["format"], onnx["exported"], onnx["validated"]) == ("onnx", True, True)
    assert (tflite["format"], tflite["exported"], tflite["path"]) == ("tflite", False, None)
    assert "complex" in tflite["why_not"]
    folder = tmp_path / "runs" / "tried"
    log = (folder / "run.log").read_text()
    assert "the run goes on with ONNX (--formats onnx leaves TFLite out)" in log
    # It is said before the training, and not only at the end.
    assert log.index("the run goes on with ONNX") < log.index("unpruned network: validation accuracy")
    assert not list(folder.glob("*.tflite"))
    assert any("not exported" in str(cell) for cell in summary_table(result).columns[3].cells)


def test_only_what_is_asked_for_is_tried(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        EXPORTERS, "onnx", replace(EXPORTERS["onnx"], export=lambda *_: pytest.fail("it was not asked for"))
    )
    images = Batches(Split(np.random.default_rng(0).random((20, 1, 8, 8), np.float32), np.zeros(20, np.int64)), PLAIN)
    # A composite operator: its file has a second subgraph, which does not matter, since it runs.
    network = make_model(f"{nets}:normed", (1, 8, 8), 10)
    config = RunConfig(formats="tflite", runtime="litert", runs_dir=tmp_path)
    folder = RunFolder.create(tmp_path, "tried", "run")
    with open_session(find_device("local")) as session:
        shipped = rehearse(config.exported, network, images, folder, session, MeasureSettings("litert"), Silent())
    assert shipped == Shipped(("tflite",), {})
    assert not list(folder.path.iterdir())


def test_a_board_with_an_old_runtime(
    run: Callable[..., dict[str, Any]], never_trained: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = DeviceSpec("board", "local", python=str(write_old_python(tmp_path)))
    monkeypatch.setattr("edgeprune.pipeline.run.find_device", lambda _: board)
    says = (
        r"board does not run this network's ONNX file: onnxruntime 1\.16\.3 cannot open the model: Unsupported "
        r"model IR version: 10, max supported IR version: 9; install onnxruntime>=1\.18 there, or type --runtime litert"
    )
    with pytest.raises(DeviceError, match=says) as caught:
        run("plain", device="board")
    assert caught.value.exit_code == 4


def test_the_format_that_is_measured_must_ship() -> None:
    assert RunConfig(formats="tflite,onnx").exported == ("onnx", "tflite")
    assert RunConfig(formats="tflite", runtime="litert").exported == ("tflite",)
    with pytest.raises(UsageError, match=r"leaves out onnx, which is what onnxruntime measures; .* --runtime litert"):
        RunConfig(formats="tflite", runtime="onnxruntime")
    for wrong in ("", "onnx,", "onnxx", "onnx tflite"):
        with pytest.raises(UsageError, match=r"there is no format .*; write onnx, tflite or onnx,tflite"):
            RunConfig(formats=wrong)


def test_a_format_that_fails_at_the_end_is_left_out_unless_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(model="mlp-32-16", train_epochs=1, runs_dir=tmp_path)
    folder = RunFolder.create(tmp_path, "late", "run")
    prepared = prepare(config, folder, Silent(), "onnxruntime")
    made: list[str] = []
    onnx = EXPORTERS["onnx"].export

    def counting(network: Any, example: Any, path: Path, metadata: Any) -> Any:
        made.append(path.name)
        if path.name == "baseline.onnx":
            return onnx(network, example, path, metadata)
        # Nothing is pruned here, so that one export is enough.
        path.write_bytes((folder / "baseline.onnx").read_bytes())
        return describe(path)

    def failing(*_: object) -> None:
        (folder / "baseline.tflite").write_bytes(b"half")
        raise ExportError("cannot export to TFLite: no memory")

    monkeypatch.setitem(EXPORTERS, "onnx", replace(EXPORTERS["onnx"], export=counting))
    monkeypatch.setitem(EXPORTERS, "tflite", replace(EXPORTERS["tflite"], export=failing))
    plan = PruningPlan({})
    exported, lost = export_all(prepared, folder, prepared.network, plan, Silent(), "onnx")
    assert [item.format for item in exported] == ["onnx"]
    assert lost == [NotExported("tflite", "cannot export to TFLite: no memory")]
    assert not (folder / "baseline.tflite").exists()
    for measured in ("tflite", None):
        with pytest.raises(ExportError, match="no memory"):
            export_all(prepared, folder, prepared.network, plan, Silent(), measured)
    # The unpruned file of the first time is there, as after a search, and still what the network computes.
    assert made == ["baseline.onnx", "model.onnx", "model.onnx", "model.onnx"]
    for spoil in (
        lambda: (folder / "baseline.onnx").write_bytes(b"damaged"),
        lambda: next(prepared.network.parameters()).data.add_(1.0),
    ):
        spoil()
        made.clear()
        export_all(prepared, folder, prepared.network, plan, Silent(), "onnx")
        assert made == ["baseline.onnx", "model.onnx"]

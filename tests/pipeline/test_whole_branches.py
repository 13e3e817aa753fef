"""Residual branches that go as a whole, through all stages of a run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import edgeprune
from edgeprune.core.design import PruningPlan
from edgeprune.core.progress import Silent
from edgeprune.core.store import TrialStore
from edgeprune.models.zoo import build
from edgeprune.pipeline.choose import distance
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.found import find
from edgeprune.pipeline.steps import way
from edgeprune.pruning.groups import discover
from edgeprune.report.table import layers_line
from edgeprune.training.regime import Regime

CODE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.Conv2d(32, 16, 3, padding=1, bias=False)
        self.norm_one, self.norm_two = nn.BatchNorm2d(32), nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norm_two(self.two(self.relu(self.norm_one(self.one(x)))))
        out += x
        return self.relu(out)

def network():
    stem = nn.Conv2d(1, 16, 3, padding=1)
    return nn.Sequential(stem, Block(), Block(), Block(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize(("bounds", "may_go"), [({}, 0), ({"max_latency": "0.5x"}, 9), ({"expect_ncr": 2}, 9)])
def test_they_go_where_something_is_asked_for(bounds: dict[str, object], may_go: int) -> None:
    config = RunConfig(model="resnet20", data="digits", **bounds)  # type: ignore[arg-type]
    assert sum(group.removable for group in find(config, Silent(), "onnxruntime").structure.groups) == may_go


def test_in_several_steps_they_go_in_the_last() -> None:
    structure = discover(build("resnet20", (3, 8, 8), 10), (3, 8, 8), runtime="onnxruntime")
    widths = {group.name: 0 if group.removable else group.channels for group in structure.groups}
    *between, last = way(structure, widths, 3, Regime(epochs=9, learning_rate=1e-3, batch_size=8, seed=0))
    assert last == widths
    assert len(between) == 2
    for group in structure.groups:
        assert [step[group.name] >= group.floor for step in between] == [True, True]
    assert between[0]["layer3.0.conv1"] > between[1]["layer3.0.conv1"]


def test_how_far_plans_without_them_lie_apart() -> None:
    whole, less = PruningPlan({"a": tuple(range(16)), "b": (0, 1)}), PruningPlan({"a": (), "b": (0, 1)})
    assert distance(whole, less) == distance(less, whole) == pytest.approx(np.log(16) / 2)
    assert distance(less, less) == 0.0


@pytest.mark.soak
def test_a_run_in_which_nothing_else_can_keep_the_bound(tmp_path: Path, made_up: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    outcome = edgeprune.run(
        RunConfig(
            model=f"{file}:network", runs_dir=tmp_path, name="r", max_bytes="0.12x", max_drop=90, episodes=4,
            train_epochs=2, finetune_epochs=1, finalists=1, processes=3, device=made_up,
        )
    )  # fmt: skip
    layers = {layer["name"]: layer["kept"] for layer in outcome.result["compressed"]["layers"]}
    gone = [name for name, kept in layers.items() if kept == 0]
    assert gone
    pruned = edgeprune.load(outcome.folder)
    x = torch.randn(8, 1, 8, 8)
    session = onnxruntime.InferenceSession(outcome.folder / "model.onnx")
    with torch.no_grad():
        assert np.allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], pruned(x), atol=1e-4)
    assert {item["agreement"] for item in outcome.result["artifacts"] if item["precision"] == "fp32"} == {1.0}
    convolutions = [node for node in onnx.load(outcome.folder / "model.onnx").graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 7 - 2 * len(gone)
    with closing(TrialStore(outcome.folder / "trials.sqlite")) as store:
        assert any(0 in trial.candidate.plan.widths.values() for trial in store.trials())
    assert f"(0: the whole branch is gone: {', '.join(gone)})" in layers_line(outcome.result)

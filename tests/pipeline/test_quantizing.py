"""Int8 files of networks that 8 bits break: what stays in float32, and what is learnt."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from handmade import ScaledLayer
from torch import nn

from edgeprune.artifacts import describe, read_metadata
from edgeprune.core.budget import Budget
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Silent
from edgeprune.core.runtimes import Format, runtime_for
from edgeprune.core.store import RunFolder
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.exporters import EXPORTERS, Parity
from edgeprune.pipeline.export import Exported, NotExported
from edgeprune.pipeline.finetune import Tuner
from edgeprune.pipeline.quantizing import at_precisions, most_lost
from edgeprune.pipeline.records.files import EightBits
from edgeprune.pipeline.rehearse import Shipped
from edgeprune.pipeline.result import artifact_of
from edgeprune.pipeline.validate import NotValidated
from edgeprune.report.table import lower_lines
from edgeprune.tasks.metrics import Accuracy, Yardstick
from edgeprune.tasks.task import CLASSIFICATION
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import train
from edgeprune.training.place import PLAIN
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime

SCALED = Preprocessing(1.0, (0.0,), (1.0,))


def batches(seed: int, count: int = 600) -> Batches:
    x = np.random.default_rng(seed).normal(size=(count, 1, 8, 8)).astype(np.float32)
    quarters = np.stack([part.mean((1, 2)) for half in np.split(x[:, 0], 2, 1) for part in np.split(half, 2, 2)], 1)
    return Batches(Split(x, quarters.argmax(1)), SCALED)


TRAIN, VALIDATION = batches(0, 2000), batches(1)


class Says(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture(scope="module")
def able() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(),
        nn.Linear(16, 4),
    )  # fmt: skip
    regime = Regime(epochs=15, learning_rate=3e-3, batch_size=32, seed=0)
    found: Any = train(net, Problem(TRAIN, VALIDATION), regime, progress=Silent(), title="").network
    return found


def odd(network: nn.Sequential, *layers: int, by: float = 2000) -> nn.Module:
    """The same function, one of whose channels after each of these layers is far larger than the others."""
    found = deepcopy(network)
    with torch.no_grad():
        for layer in layers:
            found[layer].weight[0] *= by
            found[layer].bias[0] *= by
            found[layer + 2].weight[:, 0] /= by
    return found


def made(
    network: nn.Module, kind: Format, folder: Path, watch: Says, tuner: Tuner | None = None, **shipped: Any
) -> tuple[list[Exported], list[NotExported]]:
    prepared: Any = SimpleNamespace(
        network=network, train=TRAIN, validation=VALIDATION, task=CLASSIFICATION, place=PLAIN, model="odd.py:net",
        settled=SimpleNamespace(seed=0), shipped=Shipped((kind,), precisions=("fp32", "int8"), **shipped),
        yardstick=Yardstick.on(Accuracy(), VALIDATION.y.numpy()),
        dataset=SimpleNamespace(name="quarters", classes=tuple("abcd"), input_shape=(1, 8, 8), preprocessing=SCALED),
    )  # fmt: skip
    file = EXPORTERS[kind].export(network, VALIDATION.inputs(slice(0, 2)), folder / f"model.{kind}", {})
    floats = [Exported(kind, file, file, Parity(0.0, 1.0, 1, 1.0))]
    return at_precisions(prepared, RunFolder(folder), network, None, floats, 1.0, watch, tuner)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_what_loses_little_is_in_8_bits_all_of_it(able: nn.Sequential, kind: Format, tmp_path: Path) -> None:
    watch = Says()
    ((found,), lost) = made(able, kind, tmp_path, watch)
    assert (found.eight_bits, lost) == (EightBits(), [])
    assert found.artifact == replace(describe(tmp_path / f"model-int8.{kind}"), precision="int8")
    assert read_metadata(found.artifact.path)["precision"] == "int8"
    assert len(watch.said) == 1
    assert watch.said[0].startswith(f"model-int8.{kind}: same answers as PyTorch to ")


@pytest.mark.parametrize(("kind", "layer"), [("onnx", "3"), ("tflite", "FULLY_CONNECTED 2")])
def test_what_costs_most_stays_in_float(able: nn.Sequential, kind: Format, layer: str, tmp_path: Path) -> None:
    watch = Says()
    ((found,), _) = made(odd(able, 3), kind, tmp_path, watch)
    assert found.eight_bits == EightBits(floats=(layer,))
    assert found.parity.agreement > 0.97
    assert "points on validation, more than the 1.00 points left: trying parts of it in float32" in watch.said[0]
    assert watch.said[1].startswith(f"model-int8.{kind}: what these give stays in float32: {layer}; ")
    # So do the record and the table.
    told: Any = to_json(artifact_of(NotValidated(found, runtime_for(kind).name, "it was not there")))
    assert told["eight_bits"] == {"floats": [layer], "learnt": 0.0, "refused": []}
    assert lower_lines({"artifacts": [told]})[1].endswith(f" int8: what these give stays in float32: {layer}")


def test_what_the_quantizer_fails_at_is_told(tmp_path: Path) -> None:
    watch = Says()
    ((found,), _) = made(ScaledLayer().eval(), "tflite", tmp_path, watch)
    assert found.eight_bits is not None
    assert found.eight_bits.refused == ("FULLY_CONNECTED 2",)
    words = "in float32 because the quantizer fails at it: FULLY_CONNECTED 2"
    assert any(said.startswith("model-int8.tflite: ") and words in said for said in watch.said)
    told: Any = to_json(artifact_of(NotValidated(found, runtime_for("tflite").name, "it was not there")))
    assert lower_lines({"artifacts": [told]})[1].endswith(words)


def test_where_that_is_not_enough_8_bits_are_learnt(able: nn.Sequential, tmp_path: Path) -> None:
    broken = odd(able, 1, 3, 5, by=200)
    watch = Says()
    ((without,), _) = made(broken, "onnx", tmp_path, watch)
    assert without.eight_bits is not None
    assert not without.eight_bits.learnt
    regime = Regime(epochs=8, learning_rate=2e-2, batch_size=32, seed=0)
    tuner = Tuner(
        problem=Problem(batches(0, 12000), VALIDATION), regime=regime, teacher=Distillation(broken), progress=Silent()
    )
    ((found,), _) = made(broken, "onnx", tmp_path, watch, tuner)
    assert found.eight_bits == EightBits(learnt=2.0)
    assert found.parity.agreement > without.parity.agreement + 0.05
    idle = Says()
    ((same,), _) = made(broken, "onnx", tmp_path, idle, tuner.by(regime.of(0)))
    assert same.eight_bits == without.eight_bits
    assert not any("is trained" in line for line in idle.said)
    assert any("trained with the rounding of 8 bits, 2 epochs; " in line for line in watch.said)


def test_what_cannot_be_made_is_said(able: nn.Sequential, tmp_path: Path) -> None:
    why = {("onnx", "int8"): "no such operator"}
    assert made(able, "onnx", tmp_path, Says(), without=why) == ([], [NotExported("onnx", "no such operator", "int8")])


def test_what_may_be_lost_is_what_was_asked_for_or_what_is_usual() -> None:
    assert most_lost(Budget(), Accuracy()) == Accuracy().usual_drop
    assert most_lost(Budget(max_drop=0.3), Accuracy()) == 0.3

"""What a run begins with: schedules, and unpruned networks of earlier runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.core.progress import Silent
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.prepare import Prepared, prepare


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(data="digits", model="lenet-300-100", train_epochs=2, runs_dir=tmp_path)


def prepared(config: RunConfig) -> Prepared:
    return prepare(config, RunFolder.create(config.runs_dir, None, "run"), Silent(), "onnxruntime")


def test_a_baseline_is_trained_once_however_it_is_tuned_later(config: RunConfig) -> None:
    assert prepared(config).baseline["source"] == "trained"
    assert prepared(replace(config, finetune_epochs=7, temperature=4.0)).baseline["source"] == "cached"
    for other in ({"train_epochs": 3}, {"seed": 1}, {"model": "mlp-32-16"}):
        assert prepared(replace(config, **other)).baseline["source"] == "trained", other


@pytest.mark.parametrize(("model", "temperature"), [("mlp-32-16", 1.0), ("resnet20", 3.0)])
def test_answers_are_softened_where_networks_convolve(config: RunConfig, model: str, temperature: float) -> None:
    config = replace(config, model=model, train_epochs=1)
    assert prepared(config).schedule.temperature == temperature
    assert prepared(replace(config, temperature=2.0)).schedule.temperature == 2.0


@pytest.mark.parametrize(("model", "kept"), [("lenet5", True), ("lenet-300-100", False)])
def test_memory_that_steps_free_is_kept_where_they_are_large(
    model: str, kept: bool, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("edgeprune.pipeline.prepare.keep_freed_memory", lambda: asked.append(True))
    prepared(replace(config, model=model, train_epochs=1, train_device="cpu"))
    assert bool(asked) == kept

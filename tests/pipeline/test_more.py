"""A run that got to its end may be given more epochs and finalists; what it has done is not done again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import edgeprune
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.pipeline.result import RunResult


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> edgeprune.RunConfig:
    folder = tmp_path_factory.mktemp("more")
    (folder / "device.toml").write_text("seed = 1\n[latency]\nbase_s = 1e-5\ns_per_byte = 2e-9\n")
    return edgeprune.RunConfig(
        model="mlp-32-16", device=f"simulated://{folder / 'device.toml'}", formats="onnx", runs_dir=folder / "runs",
        name="more", episodes=4, train_epochs=4, finetune_epochs=2, finalists=1, processes=3, calibration_images=300,
        max_latency="0.8x", max_drop=90,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config: edgeprune.RunConfig) -> RunResult:
    return edgeprune.run(config)


def test_more_epochs_and_finalists(done: RunResult, config: edgeprune.RunConfig) -> None:
    more = edgeprune.run(replace(config, finetune_epochs=4, finalists=2), resume=True)
    # The new finalist's second look.
    assert more.result["search"]["measured"] <= 1
    assert done.result["compressed"]["finetune_epochs"] == 2
    assert more.result["compressed"]["finetune_epochs"] == 4
    assert more.result["config"]["finetune_epochs"] == 4
    # Now that is what it has, also for whoever leaves the options out.
    before = (done.folder / "result.json").read_bytes()
    assert json.loads((done.folder / "config.json").read_text())["finalists"] == 2
    assert edgeprune.run(replace(config, finetune_epochs=4, finalists=2), resume=True).result == more.result
    assert (done.folder / "result.json").read_bytes() == before
    for fewer, says in (
        (
            {"finetune_epochs": 3, "finalists": 2},
            "has --finetune-epochs 4, and 3 are fewer.*; type --finetune-epochs 4 or",
        ),
        ({"finetune_epochs": 4, "finalists": 1}, "has --finalists 2, and 1 are fewer"),
        ({"finetune_epochs": 5, "finalists": 2, "episodes": 5}, "was made with --episodes 4, not 5"),
    ):
        with pytest.raises(UsageError, match=says):
            edgeprune.run(replace(config, **fewer), resume=True)
    for path in (done.folder / "tuned").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"its hash is not the one in .*; remove the run's folder tuned"):
        edgeprune.run(replace(config, finetune_epochs=5, finalists=2), resume=True)
    assert (done.folder / "result.json").read_bytes() == before

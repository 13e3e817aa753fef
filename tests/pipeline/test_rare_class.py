"""A whole run on a rare class, of weights whose inputs are their owner's: scaling, recall, guessing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import edgeprune
from edgeprune.artifacts import read_metadata, run_model
from edgeprune.models.weights import save_weights
from edgeprune.models.zoo import build
from edgeprune.report.table import worst_class

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.npz: is it a 9? 90 in 1,000 images are. weights.safetensors: what is trained on them as they are stored."""
    folder = tmp_path_factory.mktemp("rare")
    digits = load_digits()
    x = (digits.images.reshape(-1, 1, 8, 8) / 16 + 3).astype(np.float32)
    y = (digits.target == 9).astype(np.int64)
    kept = np.concatenate([np.flatnonzero(y == 0)[:1300], np.flatnonzero(y == 1)[:130]])
    order = np.random.default_rng(0).permutation(kept)
    train, test = order[:1000], order[1000:]
    np.savez(folder / "data.npz", x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])
    torch.manual_seed(0)
    network = build("mlp-32-16", (1, 8, 8), 2)
    inputs, labels = torch.from_numpy(x[train]) - 3, torch.from_numpy(y[train])
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(inputs), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        layer = network.get_submodule("fc1")
        layer.bias -= 3 * layer.weight.sum(1)
    save_weights(folder / "weights.safetensors", network)
    return folder


@pytest.fixture(scope="module")
def ran(own: Path, made_up: str) -> dict[str, Any]:
    """Pruned far, by the weights alone, and never tuned: what is left answers "no" to everything."""
    line = [
        *(sys.executable, "-m", "edgeprune", "run", "--runs-dir", str(own), "--name", "run"),
        *("--data", str(own / "data.npz"), "--model", "mlp-32-16", "--weights", str(own / "weights.safetensors")),
        *("--metric", "balanced-accuracy", "--max-drop", "60", "--expect-ncr", "6", "--criterion", "l1"),
        *("--search-steps", "0", "--finetune-epochs", "0", "--episodes", "3", "--finalists", "1", "--processes", "3"),
        *("--device", made_up),
    ]
    # What is made up says so, and takes room.
    env = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=900, env=env)
    assert done.returncode == 3, done.stderr + done.stdout
    return {"result": json.loads((own / "run" / "result.json").read_text()), "out": done.stdout, "err": done.stderr}


def test_every_file_says_the_scaling_that_the_weights_fit(own: Path, ran: dict[str, Any]) -> None:
    said = ran["result"]["data"]["preprocessing"]
    assert (said["scale"], said["mean"], said["std"], said["source"]) == (1.0, [0.0], [1.0], "weights")
    assert said["formula"] == "none (values as stored)"
    assert "taken instead of the data's own" in ran["err"]
    assert "input 1x8x8: none (values as stored), x as the data hold it" in ran["out"]
    plain = {"scale": 1.0, "mean": [0.0], "std": [1.0]}
    assert json.loads((own / "run" / "plan.json").read_text())["preprocessing"] == plain
    x = np.load(own / "data.npz")["x_test"][:50]
    network = edgeprune.load(own / "run")
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    for kind in ("onnx", "tflite"):
        file = own / "run" / f"model.{kind}"
        assert read_metadata(file)["preprocessing"] == plain
        np.testing.assert_allclose(run_model(kind, file, x), wanted, atol=1e-4)


def test_the_metric_judges_alike_everywhere(ran: dict[str, Any]) -> None:
    result = ran["result"]
    before, after = result["baseline"], result["compressed"]
    assert result["metric"] == "balanced-accuracy"
    lost = 100 * (before["scores"]["balanced-accuracy"] - after["scores"]["balanced-accuracy"])
    assert after["lost"] == pytest.approx(lost, abs=1e-3)
    assert before["scores"]["accuracy"] != before["scores"]["balanced-accuracy"]
    classes = result["classes"]
    assert [item["name"] for item in classes] == ["0", "1"]
    assert sum(item["images"] for item in classes) == 430
    for side, key in ((before, "baseline_recall"), (after, "recall")):
        assert np.mean([item[key] for item in classes]) == pytest.approx(side["scores"]["balanced-accuracy"])
        right = sum(item[key] * item["images"] for item in classes)
        assert right / 430 == pytest.approx(side["scores"]["accuracy"])
    assert "test balanced accuracy, host" in ran["out"]
    assert "balanced accuracy on device" in ran["out"]
    worst = worst_class(result)
    assert worst is not None
    assert all(
        item["recall"] - item["baseline_recall"] >= worst["recall"] - worst["baseline_recall"] for item in classes
    )
    assert f"worst class: {worst['name']}" in ran["out"]
    assert "validation balanced accuracy" in ran["err"]


def test_a_pruned_network_that_guesses_has_met_nothing(ran: dict[str, Any]) -> None:
    result = ran["result"]
    assert result["status"] == "budget-not-met"
    checks = {check["bound"]: check for check in result["budget"]["checks"]}
    # All that was asked for is met: 60 points may go, and the answer "no" to everything loses fewer.
    assert all(check["met"] for bound, check in checks.items() if bound != "above_chance")
    chance = checks["above_chance"]
    assert not chance["met"]
    assert chance["value"] == pytest.approx(100 * result["compressed"]["scores"]["balanced-accuracy"])
    assert chance["value"] <= chance["limit"] < 100
    assert result["search"]["at_chance"] == 3
    assert "3 of 3 trials are not told from guessing" in ran["err"]
    assert "NOT MET  balanced accuracy above what guessing gets" in ran["out"]
    assert "so no file is to be used" in ran["out"]
    assert "next: copy" not in ran["out"]

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Silent
from edgeprune.papers import shapley
from edgeprune.papers.shapley import ShapleyConfig, run_shapley
from edgeprune.papers.shapley_table import draw_shapley
from edgeprune.pipeline.export import load_network

PNG = b"\x89PNG\r\n\x1a\n"


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, title: str) -> None:
        self.lines.append(f"== {title}")

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _no_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    # The exporters have tests of their own, and the command's test runs them.
    monkeypatch.setattr(shapley, "export_all", lambda *_: ([], []))


def test_eight_steps_and_what_they_leave(tmp_path: Path) -> None:
    heard = Heard()
    config = ShapleyConfig(out=tmp_path / "a", permutations=20, finetune_epochs=3, keep=0.25)
    outcome = run_shapley(config, heard)
    stages = [line[3] for line in heard.lines if line.startswith("== ")]
    assert stages == list("12345678")
    # The cost stands before the values.
    said = next(i for i, line in enumerate(heard.lines) if line.startswith("20 permutations: 322 evaluations of about"))
    assert said < next(i for i, line in enumerate(heard.lines) if line.startswith("v(everybody)"))
    result = outcome.result
    assert result["layer"] == {"name": "fc2", "kind": "neurons", "channels": 16, "kept": 4}
    assert load_network(outcome.folder).get_submodule("fc2").weight.shape == (4, 32)
    values = [each["value"] for each in result["values"]]
    assert values == sorted(values, reverse=True)
    assert [each["kept"] for each in result["values"]] == [True] * 4 + [False] * 12
    assert all(each["error"] >= 0 for each in result["values"])
    accuracies = {each["name"]: each["accuracy"] for each in result["coalitions"]}
    assert accuracies["everybody"] == result["game"]["everybody"]
    assert accuracies["nobody"] == result["game"]["nobody"]
    assert accuracies["the 4 most useful"] > accuracies["the 4 least useful"]
    assert result["accuracy"]["unpruned"] > result["accuracy"]["pruned"] + 0.1
    assert result["accuracy"]["fine_tuned"] > result["accuracy"]["pruned"]
    assert outcome.incoming is not None
    assert (outcome.incoming.shape, outcome.outgoing.shape) == ((16, 32), (10, 16))
    pictures = draw_shapley(result, outcome.incoming, outcome.outgoing, outcome.folder)
    assert [path.name for path in pictures] == ["coalitions.png", "values.png", "network.png", "accuracy.png"]
    assert all(path.read_bytes().startswith(PNG) for path in pictures)
    # The same seed again, with the baseline that was trained; then input features, which nothing makes.
    again = run_shapley(ShapleyConfig(out=tmp_path / "b", permutations=20, finetune_epochs=3, keep=0.25), Silent())
    assert again.result["values"] == result["values"]
    assert again.result["accuracy"] == result["accuracy"]
    config = ShapleyConfig(out=tmp_path / "c", layer="inputs", permutations=2, finetune_epochs=0, images=50)
    outcome = run_shapley(config, Silent())
    assert (outcome.incoming, outcome.result["layer"]["kept"]) == (None, 32)
    assert draw_shapley(outcome.result, None, outcome.outgoing, outcome.folder)


def test_few_channels_are_valued_exactly(tmp_path: Path) -> None:
    model = tmp_path / "m.py"
    model.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))\n"
    )
    outcome = run_shapley(ShapleyConfig(model=f"{model}:net", out=tmp_path / "a", finetune_epochs=0), Silent())
    game = outcome.result["game"]
    assert (game["permutations"], game["evaluations"]) == (None, 64)
    total = sum(each["value"] for each in outcome.result["values"])
    assert total == pytest.approx(game["everybody"] - game["nobody"])
    assert {each["error"] for each in outcome.result["values"]} == {0.0}
    draw_shapley(outcome.result, outcome.incoming, outcome.outgoing, outcome.folder)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"keep": 1.0}, "--keep must be between 0 and 1"),
        ({"keep": float("nan")}, "--keep must be between 0 and 1"),
        ({"permutations": 1}, "--permutations must be at least 2"),
        ({"images": 0}, "--images must be at least 1"),
        ({"finetune_epochs": -1}, "--finetune-epochs must be 0 or more"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ShapleyConfig(**values)


def test_a_wide_layer_is_drawn_by_some_of_its_nodes(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(300)
    result = {
        "layer": {"name": "fc1", "kind": "neurons", "channels": 300, "kept": 100},
        "game": {"images": 10, "permutations": 3},
        "values": [{"channel": int(c), "value": 0.1, "error": 0.01, "kept": i < 100} for i, c in enumerate(order)],
        "coalitions": [{"name": "nobody", "accuracy": 0.1}],
        "accuracy": {"test_images": 5, "unpruned": 1.0, "pruned": 0.5, "fine_tuned": 0.9},
        "parameters": {"unpruned": 9000, "pruned": 3000},
    }
    for path in draw_shapley(result, np.ones((300, 784)), np.ones((100, 300)), tmp_path):
        assert path.read_bytes().startswith(PNG)

"""Whole runs of every task: what ships answers as it is told, by the task's own metric worked out anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    jaccard_score,
    mean_absolute_error,
    mean_squared_error,
    roc_auc_score,
)

import edgeprune
from edgeprune.artifacts import read_metadata, run_model
from edgeprune.cli.main import main
from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.inputs import InputSpec, fields
from edgeprune.core.plain import from_json
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Preprocessing
from edgeprune.pipeline.found import find
from edgeprune.pipeline.result import RunResult
from edgeprune.pipeline.stored import repeated
from edgeprune.tasks.own import load_own, own_targets

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL: dict[str, Any] = {
    "episodes": 3, "finetune_epochs": 3, "finalists": 1, "processes": 3, "calibration_images": 300, "search_steps": 10,
    "formats": "onnx",
}  # fmt: skip

OWN = """
import numpy as np
from torch import nn

R = np.random.default_rng(0)
X = R.normal(size=(900, 16)).astype("float32")
LOW = (X[:, :3] @ R.normal(size=(3, 16))).astype("float32")

def split(x, y):
    return {"x_train": x[:700], "y_train": y[:700], "x_test": x[700:], "y_test": y[700:]}

def binary(): return split(X, X[:, 0] + X[:, 1] > 0)
def labels(): return split(X, (X[:, :3] > 0).astype(int))
def same():
    test = np.concatenate([LOW[700:], 1.5 * X[:50]])
    return split(LOW, LOW) | {"x_test": test, "y_test": test, "anomalies": np.arange(250) >= 200}
def mlp(outputs):
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, outputs))
def one(): return nn.Sequential(mlp(1), nn.Flatten(0))
def three(): return mlp(3)
def sixteen(): return mlp(16)
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that are made up say so, which takes the room of the longest names at 80 columns."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tasks") / "own.py"
    file.write_text(OWN)
    return file


def iou(targets: NDArray[Any], answers: NDArray[np.float32]) -> float:
    return float(jaccard_score(targets.ravel(), answers.argmax(1).ravel(), average="macro"))


@pytest.mark.parametrize(
    ("task", "data", "model", "metric", "score", "options"),
    [
        pytest.param(
            "binary", "binary", "one", "accuracy", lambda y, a: accuracy_score(y, a > 0), {"train_epochs": 20},
            marks=pytest.mark.soak,
        ),
        pytest.param(
            "multi-label", "labels", "three", "map", average_precision_score, {"train_epochs": 20},
            marks=pytest.mark.soak,
        ),
        ("reconstruction", "same", "sixteen", "mse", mean_squared_error, {"train_epochs": 30, "max_drop": "400%"}),
        pytest.param(
            "regression", "remaining_life:data", "remaining_life:network", "mae", mean_absolute_error,
            {"train_epochs": 4, "max_drop": "20%", "max_latency": "0.9x"}, marks=pytest.mark.soak,
        ),
        pytest.param(
            "segmentation", "segmentation:data", "segmentation:Net", "miou", iou,
            {"train_epochs": 5, "max_latency": "0.9x"}, marks=pytest.mark.soak,
        ),
    ],
)  # fmt: skip
def test_a_run(
    own: Path, made_up: str, task: str, data: str, model: str, metric: str, score: Callable[..., float],
    options: dict[str, Any], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def spec(name: str) -> str:
        file, _, function = name.rpartition(":")
        return f"{EXAMPLES / file}.py:{function}" if file else f"{own}:{function}"

    done = edgeprune.run(
        edgeprune.RunConfig(
            data=spec(data),
            model=spec(model),
            runs_dir=own.parent / "runs",
            name=task,
            device=made_up,
            **{**SMALL, **options},
        )
    )
    result = done.result
    assert (result["task"], result["metric"]) == (task, metric)
    assert result["settled"]["task"]["value"] == task
    dataset = load_data(spec(data), None, seed=0, progress=Silent())
    shape = tuple(result["data"]["input_shape"])
    said = result["data"]["preprocessing"]
    per_channel = (1, -1, *[1] * (len(shape) - 1))

    def scaled(raw: NDArray[Any]) -> NDArray[np.float32]:
        x = raw.reshape(-1, *shape).astype(np.float32) * said["scale"]
        return ((x - np.reshape(said["mean"], per_channel)) / np.reshape(said["std"], per_channel)).astype(np.float32)

    x = scaled(dataset.test.x)
    for file, before in (("model.onnx", "compressed"), ("baseline.onnx", "baseline")):
        answers = run_model("onnx", done.folder / file, x)
        found = score(dataset.test.y, answers.reshape(-1) if dataset.test.y.ndim == 1 else answers)
        assert result[before]["scores"][metric] == pytest.approx(found, rel=1e-4)
        low, high = result[before]["interval"]
        assert low <= found <= high
        if dataset.anomalous is not None:
            odd = scaled(dataset.anomalous.x)
            off = [((run_model("onnx", done.folder / file, each) - raw) ** 2).mean(1)
                   for each, raw in ((x, dataset.test.y), (odd, dataset.anomalous.y))]  # fmt: skip
            auc = roc_auc_score(np.repeat([0, 1], [200, 50]), np.concatenate(off))
            assert 0.6 < result[before]["scores"]["auc"] == pytest.approx(auc, abs=1e-3)
        assert read_metadata(done.folder / file)["task"] == task
    (item,) = result["artifacts"]
    assert item["agreement"] >= 0.999
    assert item["device_scores"][metric] == pytest.approx(result["compressed"]["scores"][metric], rel=1e-3)
    network = edgeprune.load(done.folder)
    with torch.no_grad():
        np.testing.assert_allclose(
            network(torch.from_numpy(x[:8])),
            run_model("onnx", done.folder / "model.onnx", x[:8]), rtol=1e-3, atol=1e-3,
        )  # fmt: skip
    checks = {check["bound"]: check for check in result["budget"]["checks"]}
    before, after = result["baseline"]["scores"][metric], result["compressed"]["scores"][metric]
    lost = 100 * (after / before - 1) if metric in ("mae", "mse") else 100 * (before - after)
    assert checks["max_drop"]["value"] == pytest.approx(lost, abs=1e-3)
    assert checks["max_drop"]["unit"] == result["compressed"]["lost_unit"]
    assert checks["above_chance"]["met"], checks
    table(done, capsys)
    same_by_command(done, capsys)


@pytest.mark.parametrize(
    ("example", "inputs", "options"),
    [
        ("two_sensors", {"motion": [3, 64], "pulse": [1, 16]}, {"train_epochs": 3}),
        pytest.param("tokens", {"input": [16]}, {"train_epochs": 4, "max_drop": 5}, marks=pytest.mark.soak),
        pytest.param("lstm", {}, {"train_epochs": 6}, marks=pytest.mark.soak),
    ],
)
def test_several_inputs_and_integers(
    own: Path, made_up: str, example: str, inputs: dict[str, list[int]], options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = EXAMPLES / f"{example}.py"
    done = edgeprune.run(
        edgeprune.RunConfig(
            data=f"{file}:data",
            model=f"{file}:Net",
            runs_dir=own.parent / "runs",
            name=example,
            device=made_up,
            **{**SMALL, **options},
        )
    )
    result = done.result
    assert done.exit_code in (0, 3), result["budget"]
    told = result["data"]["input_shape"]
    if inputs:
        assert {each["name"]: each["shape"] for each in told} == inputs
        assert set(result["data"]["preprocessing"]["inputs"]) == set(inputs)
    for item in result["artifacts"]:
        assert item["agreement"] >= 0.995
        assert item["device_scores"]["accuracy"] > result["budget"]["checks"][-1]["limit"] / 100
    # The network that Python loads, and the file, answer alike to test examples prepared as the file says.
    network = edgeprune.load(done.folder)
    dataset = load_data(f"{file}:data", None, seed=0, progress=Silent())
    said = read_metadata(done.folder / "model.onnx")
    assert said["input_shape"] == told
    raw = fields(dataset.test.x[:8])
    if "inputs" not in said["preprocessing"]:
        prepared = {"input": from_json(Preprocessing, said["preprocessing"]).apply(raw["input"].reshape(-1, *told))}
    else:
        prepared = {
            name: raw[name].astype(np.int64) if how is None else from_json(Preprocessing, how).apply(raw[name])
            for name, how in said["preprocessing"]["inputs"].items()
        }
    session = onnxruntime.InferenceSession(done.folder / "model.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        answers = network(*map(torch.from_numpy, prepared.values()))
    np.testing.assert_allclose(answers, session.run(None, prepared)[0], rtol=1e-3, atol=1e-3)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["run", "--resume", example, "--runs-dir", str(own.parent / "runs")])
    shown = capsys.readouterr().out
    for name, shape in inputs.items():
        assert f"{name} {'x'.join(map(str, shape))}" in shown
    same_by_command(done, capsys)


def test_who_cuts_fractions_to_integers_gets_integers(tmp_path: Path) -> None:
    file = tmp_path / "cuts.py"
    file.write_text(
        "import numpy as np\nfrom torch import nn\n"
        "X = np.random.default_rng(0).integers(0, 9, (200, 4))\n"
        "def data(): return X[:150], X[:150, 0] % 2, X[150:], X[150:, 0] % 2\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, words=9):\n"
        "        super().__init__()\n"
        "        self.table, self.one, self.two = nn.Embedding(words, 8), nn.Linear(32, 16), nn.Linear(16, 2)\n"
        "    def forward(self, x): return self.two(self.one(self.table(x.long()).flatten(1)).relu())\n"
        "def small(): return Net(5)\n"
    )
    config = edgeprune.RunConfig(data=f"{file}:data", model=f"{file}:Net")
    found = find(config, Silent(), "onnxruntime")
    assert found.dataset.input_shape == (InputSpec("input", (4,), "int64", 9),)
    # Standardised first and cut then, words would all become a few small numbers.
    assert found.dataset.train.x.max() == 8
    with pytest.raises(ModelError, match=r"two examples of 4 \(integers\): index out of range"):
        find(edgeprune.RunConfig(data=f"{file}:data", model=f"{file}:small", seed=1), Silent(), "onnxruntime")


def test_inputs_are_not_handed_to_parameters_of_other_names(tmp_path: Path) -> None:
    file = tmp_path / "gap.py"
    file.write_text(
        "import numpy as np\nfrom torch import nn\n"
        "X = np.random.default_rng(0).normal(size=(200, 4))\n"
        "def some(a): return {'two': X[a], 'one': -X[a]}\n"
        "def data(): return some(slice(150)), (X[:150, 0] > 0) * 1, some(slice(150, 200)), (X[150:, 0] > 0) * 1\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 2)\n"
        "    def forward(self, one, two, mask=None):\n"
        "        x = one if mask is None else one * mask\n"
        "        return self.last(self.first(x + 2 * two).relu())\n"
        "class Gap(Net):\n"
        "    def forward(self, one, mask=None, two=None): return super().forward(one, two, mask)\n"
    )
    found = find(edgeprune.RunConfig(data=f"{file}:data", model=f"{file}:Net"), Silent(), "onnxruntime")
    assert [spec.name for spec in found.dataset.input_shape] == ["one", "two"]
    # By place the second input would become the mask, and nobody would hear of it.
    with pytest.raises(ModelError, match=r"forward\(one, mask, two\) takes mask before two"):
        find(edgeprune.RunConfig(data=f"{file}:data", model=f"{file}:Gap"), Silent(), "onnxruntime")


def test_a_loader_that_shuffles_brings_the_same_examples_again(tmp_path: Path) -> None:
    file = tmp_path / "loader.py"
    file.write_text(
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))\n"
        "def data(): return (DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8, shuffle=True),) * 2\n"
        "def net(): return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))\n"
    )
    config = edgeprune.RunConfig(data=f"{file}:data", model=f"{file}:net")
    torch.manual_seed(1)
    first = find(config, Silent(), "onnxruntime").dataset.fingerprint
    torch.manual_seed(2)
    assert find(config, Silent(), "onnxruntime").dataset.fingerprint == first


def test_anomalies_are_of_a_reconstruction(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    marks = np.arange(60) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=x.sum(1), x_test=x, y_test=x.sum(1), anomalies=marks)
    config = edgeprune.RunConfig(data=str(tmp_path / "a.npz"), model="mlp-32-16")
    with pytest.raises(UsageError, match="the data mark anomalies, and the task is regression"):
        find(config, Silent(), "onnxruntime")


@pytest.mark.soak
def test_a_task_of_ones_own(own: Path, made_up: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A detector: targets are dicts, the network gives two outputs, loss and score are the user's."""
    file = own.parent / "detector.py"
    file.write_text((EXAMPLES / "detector.py").read_text())
    given = {"data": f"{file}:data", "model": f"{file}:Net", "task": f"{file}:Detection", "name": "own"}
    done = edgeprune.run(
        edgeprune.RunConfig(
            **given,
            runs_dir=own.parent / "runs",
            device=made_up,
            train_epochs=6,
            max_drop=5,
            **{**SMALL, "formats": "onnx,tflite"},
        )
    )
    result = done.result
    assert (result["task"], result["metric"]) == ("own", "score")
    # Worked out anew, from what the very files answer to test images.
    owner = load_own(given["task"])
    dataset = load_data(given["data"], None, seed=0, progress=Silent(), task=own_targets(given["task"], owner))
    x = from_json(Preprocessing, {k: result["data"]["preprocessing"][k] for k in ("scale", "mean", "std")})
    targets = dataset.target_layout.split(dataset.test.y)
    session = onnxruntime.InferenceSession(done.folder / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = [each.name for each in session.get_outputs()]
    assert outputs == ["box", "there"]
    answers = dict(zip(outputs, session.run(None, {"input": x.apply(dataset.test.x)}), strict=True))
    found = owner.score(answers, targets)
    assert result["compressed"]["scores"]["score"] == pytest.approx(found, abs=1e-4)
    for item in result["artifacts"]:
        assert item["agreement"] >= 0.99
        assert item["device_scores"]["score"] == pytest.approx(found, abs=1e-3)
    runner = Interpreter(str(done.folder / "model.tflite")).get_signature_runner()
    one = runner(input=x.apply(dataset.test.x[:1]))
    for name in outputs:
        np.testing.assert_allclose(one[name], answers[name][:1], rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        loaded = edgeprune.load(done.folder)(torch.from_numpy(x.apply(dataset.test.x[:4])))
    np.testing.assert_allclose(loaded["box"], answers["box"][:4], rtol=1e-3, atol=1e-3)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["run", "--resume", "own", "--runs-dir", str(own.parent / "runs")])
    assert ended.value.code == done.exit_code
    assert "test score, host" in capsys.readouterr().out
    same_by_command(done, capsys, "--task", given["task"])
    # It can be repeated from its result; and not be gone on with where the scores may mean something else.
    assert repeated(done.folder / "result.json")["task"] == given["task"]
    file.write_text(f"{file.read_text()}\n# another score\n")
    (done.folder / "result.json").unlink()
    with pytest.raises(SystemExit):
        main(["run", "--resume", "own", "--runs-dir", str(own.parent / "runs")])
    assert "data, weights, model or task changed since run 'own' began" in capsys.readouterr().err


def same_by_command(done: RunResult, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    """What ships, judged once more by `edgeprune validate`, which says what the run said."""
    for item in done.result["artifacts"]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "validate",
                    str(done.folder / item["path"]),
                    "--data",
                    done.result["config"]["data"],
                    "--json",
                    *options,
                ]
            )
        shown = capsys.readouterr()
        assert not ended.value.code, shown.err
        told = json.loads(shown.out)
        assert (told["task"], told["metric"]) == (done.result["task"], done.result["metric"])
        assert told["scores"] == item["device_scores"]
        assert told["preprocessing"] == "of the file"
        low, high = told["interval"]
        assert low <= told["scores"][told["metric"]] <= high


def table(done: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    """What the command shows of it, asked for again: nothing is left to do."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["run", "--resume", done.folder.name, "--runs-dir", str(done.folder.parent)])
    assert ended.value.code == done.exit_code
    output = capsys.readouterr().out
    title = {"mae": "mean absolute error", "mse": "mean squared error", "miou": "mean IoU", "accuracy": "accuracy",
             "map": "mean average precision"}[done.result["metric"]]  # fmt: skip
    assert f"test {title}, host" in output
    direction = "below" if title.endswith("error") else "above"
    assert f"{title} {direction} what guessing gets" in output
    lost = f"{title} grown at most by" if title.endswith("error") else "points lost at most"
    assert lost in output
    assert json.loads((done.folder / "result.json").read_text()) == json.loads(json.dumps(done.result))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--task", "regression"], "--task regression"),
        (["--metric", "mae"], "--metric mae is none of classification; give --metric accuracy or"),
        (["--max-drop", "5%"], "--max-drop is in percent, and what is lost of accuracy is told in points"),
        (["--task", "sorting"], "--task: there is no task 'sorting'"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line_and_leaves_nothing(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--runs-dir", str(tmp_path), "--quiet", *options])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert said.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if path.name != ".cache"]

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes.foreign import write_ort
from fakes.tiny_models import write_endless, write_onnx
from onnx import TensorProto, helper

from edgeprune.cli.main import main

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

Runs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs `edgeprune validate ARGUMENTS` where `two.npz` has images of two pixels: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    y = np.arange(40) % 2
    x = np.eye(2, dtype=np.float32)[y]
    np.savez("two.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["validate", *arguments])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(file) as archive:
        return dict(archive)


def test_conventions_are_on_the_screen_and_in_the_json(runs: Runs, tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["none", "x"], ["y"], axis=1)]
    shapes = {"x": (TensorProto.FLOAT, [1, 2])}, {"y": (TensorProto.FLOAT, [1, 3])}
    write_onnx(tmp_path / "three.onnx", nodes, *shapes, {"none": np.full((1, 1), -9, np.float32)})
    code, _, err = runs("three.onnx", "--data", "two.npz", "--quiet")
    assert code == 2
    assert "gives 3 numbers an image, the data has 2 classes; where a background class comes first" in err
    code, out, _ = runs("three.onnx", "--data", "two.npz", "--quiet", "--label-offset", "1")
    assert code == 0
    assert "three.onnx on local: 100.00 % right" in out
    assert "images go into x 1x2 (float32), as they come" in out
    assert "the class is read from y: the largest of 3 values, class k is the model's k + 1" in out
    assert "preprocessing tried on 40 training images: of the data 100.00 %, unit 100.00 %" in out
    assert "; of the data is kept, as none is clearly better" in out
    code, out, _ = runs("three.onnx", "--data", "two.npz", "--json", "--label-offset", "1", "--output", "y")
    told = json.loads(out)
    assert (told["accuracy"], told["input"], told["output"], told["batch"]) == (1, "x", "y", 1)
    assert told["preprocessing"] == "of the data"
    assert [(way["preprocessing"], way["images"]) for way in told["tried"]][:2] == [("of the data", 40), ("unit", 40)]
    assert len(told["conventions"]) == 3
    assert told["advice"] == []


def test_an_endless_file_ends_soon(runs: Runs, tmp_path: Path) -> None:
    write_endless(tmp_path / "endless.onnx", 2)
    x, y = np.ones((40, 2), np.float32), np.arange(40) % 2
    np.savez("ones.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    code, out, err = runs("endless.onnx", "--data", "ones.npz", "--preprocessing", "none", "--timeout", "1")
    assert (code, out) == (4, "")
    assert "opening endless.onnx, first image" in err
    last = err.splitlines()[-1]
    assert last.startswith("error: endless.onnx does not run on local: the first example took longer than 1 s;")
    assert last.endswith("where it is only slow there, give --timeout SECONDS")


def test_wrong_words_are_named(runs: Runs, tmp_path: Path) -> None:
    write_endless(tmp_path / "net.onnx", 2)
    code, _, err = runs("net.onnx", "--data", "two.npz", "--preprocessing", "units")
    assert code == 2
    assert "did you mean 'unit'?" in err
    code, _, err = runs("net.onnx", "--data", "two.npz", "--stream", "--quiet")
    assert code == 2
    assert "only .tflite files have variables; leave out --stream" in err


def test_onnxruntimes_own_format(runs: Runs, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    write_onnx(tmp_path / "net.onnx", nodes, {"x": (TensorProto.FLOAT, [1, 2])}, {"y": (TensorProto.FLOAT, [1, 2])})
    write_ort(tmp_path / "net.onnx")
    code, out, err = runs("net.ort", "--data", "two.npz", "--quiet")
    assert code == 0, err
    assert "100.00 % right" in out


# ----------------------------------------------------------------------------------------------------- other tasks


def write_sums(path: Path) -> Path:
    """The sum of both pixels, and one more."""
    nodes = [helper.make_node("ReduceSum", ["x", "axis"], ["s"]), helper.make_node("Add", ["s", "one"], ["y"])]
    shapes = {"x": (FLOAT, ["n", 2])}, {"y": (FLOAT, ["n", 1])}
    return write_onnx(path, nodes, *shapes, {"axis": np.array([1]), "one": np.float32(1)})


def say(path: Path, **said: object) -> Path:
    """Gives the file metadata as a run writes them."""
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "edgeprune", json.dumps(said)
    onnx.save(model, path)
    return path


@pytest.fixture
def sums(tmp_path: Path) -> None:
    """Numbers to predict: twenty times the sum of both pixels."""
    x = np.random.default_rng(0).uniform(0, 1, (60, 2)).astype(np.float32)
    np.savez(tmp_path / "sums.npz", x_train=x, y_train=20 * x.sum(1), x_test=x, y_test=20 * x.sum(1))


@pytest.mark.usefixtures("sums")
def test_a_foreign_regression_in_its_own_terms(runs: Runs, tmp_path: Path) -> None:
    write_sums(tmp_path / "net.onnx")
    common = ["net.onnx", "--data", "sums.npz", "--preprocessing", "20,1"]
    # Pixels less 20 are far below what is to be predicted.
    code, out, err = runs(*common)
    assert code == 0, err
    assert "task: regression, worked out from the targets; judged by mean absolute error" in err
    first, others, guessing = out.splitlines()[:3]
    assert first.startswith("net.onnx on local: mean absolute error ")
    assert " in the targets' unit (95 %: " in first
    assert first.endswith("), 60 test examples")
    assert others.startswith("  root mean squared error ")
    assert " R² -" in others
    assert " in the square of the targets' unit" in others
    assert guessing.startswith("  guessing gets ")
    assert "no better than guessing: an answer that is always the same gets" in out
    code, out, _ = runs(*common, "--json", "--metric", "mse", "--images", "7")
    told, data = json.loads(out), arrays("sums.npz")
    assert (told["task"], told["metric"], told["images"]) == ("regression", "mse", 7)
    assert set(told["scores"]) == {"mae", "rmse", "r2", "mse"}
    off = 20 * data["x_test"].sum(1) - (data["x_test"].sum(1) - 40 + 1)
    assert off.min() ** 2 <= told["scores"]["mse"] <= off.max() ** 2
    assert told["interval"][0] <= told["scores"]["mse"] <= told["interval"][1]


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--task", "sorting"], "--task: there is no task 'sorting'; "),
        (["--task", "segmentation"], "not integers; "),
        (["--metric", "accuracy"], "--metric accuracy is none of regression; give --metric mae or"),
        (["--metric", "score"], "--metric score is that of a task of your own; give --task FILE.py:FUNCTION"),
        (["--task", "own.py:Own", "--metric", "mae"], "--metric mae means nothing to a task of your own; leave it out"),
        (["--label-offset", "1"], "--label-offset is of one class for each example, and this task has none; leave it"),
        (["--stream"], "net.onnx keeps nothing from example to example: only .tflite files have variables; leave out"),
        (["--data", "two.npz", "--metric", "top-5"], "--metric top-5 says nothing of 2 classes; leave it out"),
        (["--data", "two.npz", "--task", "regression", "--input", "x=1"], "none is left for the examples"),
        (["--data", "digits", "--task", "regression"], "--task regression wants numbers, and the targets are classes"),
        (["--data", "two.npz", "--task", "classification"], "--task classification wants 2 values an example; leave"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line(runs: Runs, tmp_path: Path, options: list[str], says: str) -> None:
    write_sums(tmp_path / "net.onnx")
    data = [] if "--data" in options else ["--data", "sums.npz"]
    code, out, err = runs("net.onnx", *data, "--quiet", *options)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err


@pytest.mark.usefixtures("sums")
def test_a_file_of_ours_says_what_it_is_for(runs: Runs, tmp_path: Path) -> None:
    write_sums(tmp_path / "net.onnx")
    scaled = {"scale": 20.0, "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    say(tmp_path / "net.onnx", edgeprune="1", task="regression", input_shape=[2], preprocessing=scaled)
    code, out, err = runs("net.onnx", "--data", "sums.npz")
    assert code == 0, err
    assert "task: regression, as the file says" in err
    assert "mean absolute error 1 in the targets' unit" in out
    assert "preprocessing of the file" in out
    # Integers are numbers to predict then, as they were in the run; classes of a standard data set are not.
    data = arrays("sums.npz")
    data |= {name: np.rint(data[name]).astype(int) for name in ("y_train", "y_test")}
    np.savez("whole.npz", **data)
    code, out, _ = runs("net.onnx", "--data", "whole.npz", "--quiet")
    assert (code, "mean absolute error" in out) == (0, True)
    code, _, err = runs("net.onnx", "--data", "digits", "--quiet")
    assert code == 2
    assert "net.onnx was made for regression, which wants numbers, and digits has 10 classes; give --data of" in err
    say(write_sums(tmp_path / "own.onnx"), edgeprune="1", task="own", input_shape=[2], preprocessing=scaled)
    code, _, err = runs("own.onnx", "--data", "sums.npz", "--quiet")
    assert code == 2
    assert "own.onnx was made for a task of its owner's own, and does not carry it; give --task FILE.py:FUNCTION" in err


def test_what_a_file_of_ours_says_of_each_input(runs: Runs, tmp_path: Path) -> None:
    """Numbers scaled for themselves, tokens as they are, in the file's order and not in the data's."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Squeeze", ["rows", "one"], ["row"]),
        helper.make_node("Mul", ["row", "sign"], ["y"]),
    ]
    inputs = {"sign": (FLOAT, ["n", 1]), "ids": (INT64, ["n", 1])}
    weights = {"table": np.float32([[1, 0], [0, 1], [1, 0]]), "one": np.array([1])}
    write_onnx(tmp_path / "net.onnx", nodes, inputs, {"y": (FLOAT, ["n", 2])}, weights)
    scaled = {"scale": 1.0, "mean": [100.0], "std": [1.0]}
    shape = [
        {"name": "sign", "shape": [1], "dtype": "float32", "values": 0},
        {"name": "ids", "shape": [1], "dtype": "int64", "values": 3},
    ]
    each = {"inputs": {"sign": scaled, "ids": None}}
    say(tmp_path / "net.onnx", edgeprune="1", task="classification", input_shape=shape, preprocessing=each)
    random = np.random.default_rng(0)
    ids, y = random.integers(0, 3, (60, 1)), random.integers(0, 2, 60)
    # Right where the sign is 1 after its scaling: 101 for classes of the table, 99 for the others.
    sign = np.where((ids[:, 0] % 2) == y, 101, 99).astype(np.float32)[:, None]
    parts = {f"{part}.{name}": x for part in ("x_train", "x_test") for name, x in (("ids", ids), ("sign", sign))}
    np.savez("each.npz", y_train=y, y_test=y, **parts)
    code, out, err = runs("net.onnx", "--data", "each.npz", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["accuracy"], told["preprocessing"], told["input"]) == (1, "of the file", "sign, ids")
    assert told["scores"] == {"accuracy": 1, "balanced-accuracy": 1}
    code, out, _ = runs("net.onnx", "--data", "each.npz", "--quiet", "--metric", "balanced-accuracy")
    assert "net.onnx on local: balanced accuracy 100.00 % (95 %: " in out
    assert "; 100.00 % right, 60 of 60 test examples (95 %: " in out
    code, _, err = runs("net.onnx", "--data", "two.npz", "--quiet")
    assert code == 2
    assert "net.onnx takes sign 1, ids 1 (integers), and two has one input, 2; give --data the file was made for" in err


def test_one_value_of_a_file_of_ours_is_a_logit(runs: Runs, tmp_path: Path) -> None:
    """Though all of them lie between 0 and 1, which would be probabilities: then every answer is class 1."""
    shapes = {"x": (FLOAT, ["n", 2])}, {"y": (FLOAT, ["n", 1])}
    write_onnx(tmp_path / "net.onnx", [helper.make_node("Gemm", ["x", "w"], ["y"])], *shapes,
               {"w": np.float32([[0.25], [0.75]])})  # fmt: skip
    plain = {"scale": 1.0, "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    say(tmp_path / "net.onnx", edgeprune="1", task="binary", input_shape=[2], preprocessing=plain)
    _, out, _ = runs("net.onnx", "--data", "two.npz", "--quiet")
    assert "50.00 % right" in out
    assert "taken for a logit: class 1 above 0" in out


def test_a_task_of_ones_own_gets_all_outputs(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "X = np.random.default_rng(0).normal(size=(60, 2)).astype('float32')\n"
        "Y = [{'a': x[:1], 'n': int(x[1] > 0)} for x in X]\n"
        "def data(): return X, Y, X, Y\n"
        "class Own:\n"
        "    better = 'lower'\n"
        "    chance = 3.0\n"
        "    def loss(self, output, target): raise NotImplementedError\n"
        "    def score(self, output, target):\n"
        "        assert set(output) == {'up', 'off'} and output['off'].dtype.kind == 'i', output\n"
        "        assert output['up'].shape == (len(target['a']), 1, 1), output['up'].shape\n"
        "        off = np.abs(output['up'][:, 0] - target['a']).mean()\n"
        "        return float(off + (output['off'][:, 0] != target['n']).mean())\n"
    )
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Unsqueeze", ["a", "one"], ["a3"]),
        helper.make_node("Add", ["a3", "two"], ["up"]),
        helper.make_node("Greater", ["b", "zero"], ["more"]),
        helper.make_node("Cast", ["more"], ["off"], to=INT64),
    ]
    weights = {"sizes": np.array([1, 1]), "one": np.array([1]), "two": np.float32(2), "zero": np.float32(0)}
    outputs = {"up": (FLOAT, ["n", 1, 1]), "off": (INT64, ["n", 1])}
    write_onnx(tmp_path / "net.onnx", nodes, {"x": (FLOAT, ["n", 2])}, outputs, weights)
    common = ["net.onnx", "--data", "own.py:data", "--task", "own.py:Own", "--preprocessing", "none"]
    code, out, err = runs(*common)
    assert code == 0, err
    assert "task: own, of own.py:Own" in err
    assert out.startswith("net.onnx on local: error 2 (95 %: 2 to 2), 60 test examples\n  guessing gets 3\n")
    assert "  answers are read from up 1x1, off 1; judged by error\n" in out
    code, _, err = runs(*common, "--output", "up", "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert "--task own.py:Own: score fails at own.py line" in err

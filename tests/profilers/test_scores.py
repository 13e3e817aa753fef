"""Files whose answers are no single class, made small: what is read of them, and what their task says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.stateful_tflite import write_sum
from fakes.tiny_models import write_onnx
from onnx import TensorProto, helper

from edgeprune.core.errors import ModelError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Silent
from edgeprune.data.arrays import from_arrays
from edgeprune.data.dataset import Dataset, EachInput
from edgeprune.data.preprocessing import resolve
from edgeprune.data.split import make_dataset
from edgeprune.devices import find_device, open_session
from edgeprune.devices.local import LocalSession
from edgeprune.profilers.accuracy import accuracy_on_device
from edgeprune.profilers.inputs import given_for
from edgeprune.profilers.records import Accuracy, Scores
from edgeprune.profilers.scores import JudgedBy, scores_on_device
from edgeprune.profilers.ways import Asked, Scaling
from edgeprune.tasks.resolve import settle_task

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
node = helper.make_node
RANDOM = np.random.default_rng(0)
SCORES, CLASSES = Callable[..., Scores], Callable[..., Accuracy]


def dataset(x: Any, y: np.ndarray, task: Any = None) -> Dataset:
    raw = from_arrays({"x_train": x, "y_train": y, "x_test": x, "y_test": y}, "made", task=task)
    return make_dataset("made", raw, seed=0, validation_share=0.2)


def asked(data: Dataset, words: tuple[str, ...], **how: Any) -> Asked:
    scalings = tuple(Scaling(word, resolve("none" if word == "raw" else word, data)) for word in words)
    return Asked(scalings, raw_integers="raw" in words or isinstance(data.preprocessing, EachInput), **how)


@pytest.fixture(scope="module")
def device() -> Iterator[LocalSession]:
    with open_session(find_device("local")) as opened:
        yield opened


def settings(file: Path) -> MeasureSettings:
    return MeasureSettings("onnxruntime" if file.suffix == ".onnx" else "litert")


@pytest.fixture
def scores(device: LocalSession) -> SCORES:
    def run(
        file: Path, data: Dataset, *words: str, metric: Any = None, ours: bool = False, images: Any = None, **how: Any
    ) -> Scores:
        task = settle_task(None, metric, data.targets, data.train.y, data.classes, (2,), same=False)
        wanted = JudgedBy(lambda *_: task, ours=ours)
        chosen = asked(data, words or ("raw",), **how)
        return scores_on_device(device, settings(file), file, data, chosen, wanted, Silent(), images)

    return run


@pytest.fixture
def classes(device: LocalSession) -> CLASSES:
    def run(file: Path, data: Dataset, **how: Any) -> Accuracy:
        return accuracy_on_device(device, settings(file), file, data, asked(data, ("raw",), **how), Silent())

    return run


# ----------------------------------------------------------------------------------------------------- other tasks


@pytest.fixture(scope="module")
def numbers() -> Dataset:
    """What is to be predicted is the sum of three features."""
    x = RANDOM.uniform(10, 20, (60, 3)).astype(np.float32)
    return dataset(x, x.sum(1))


def write_off(path: Path, shape: list[Any], off: float) -> Path:
    """The sum of the three features, and `off` more."""
    nodes = [node("ReduceSum", ["x", "axis"], ["s"], keepdims=len(shape) - 1), node("Add", ["s", "off"], ["y"])]
    weights = {"axis": np.array([1]), "off": np.float32(off)}
    return write_onnx(path, nodes, {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, shape)}, weights)


def test_numbers_are_judged_by_their_error(scores: SCORES, numbers: Dataset, tmp_path: Path) -> None:
    found = scores(write_off(tmp_path / "net.onnx", ["n", 1], 0.5), numbers)
    y = numbers.test.y
    assert (found.task, found.metric, found.images) == ("regression", "mae", 60)
    expected = {"mae": 0.5, "rmse": 0.5, "mse": 0.25, "r2": 1 - 0.25 / y.var()}
    assert found.scores == pytest.approx(expected, abs=1e-4)
    assert found.interval == pytest.approx((0.5, 0.5), abs=1e-4)
    assert found.guessing == pytest.approx(np.abs(y - np.median(y)).mean())
    assert (found.inputs, found.outputs, found.advice) == (("x",), ("y",), ())
    assert any("answers are read from y" in line and "mean absolute error" in line for line in found.conventions)
    few = scores(tmp_path / "net.onnx", numbers, metric="rmse", images=1)
    assert (few.metric, few.images, few.interval) == ("rmse", 1, None)


def test_the_scaling_that_fits_is_found_by_the_error(scores: SCORES, numbers: Dataset, tmp_path: Path) -> None:
    found = scores(write_off(tmp_path / "net.onnx", ["n"], 0.0), numbers, "data", "raw")
    assert found.preprocessing == "raw"
    assert found.scores["mae"] == pytest.approx(0, abs=1e-4)
    tried = {way.preprocessing: way.score for way in found.tried}
    assert tried["raw"] < 0.1 < tried["data"]
    # Whose answers are worse than one that is always the same, that is told.
    kept = scores(write_off(tmp_path / "far.onnx", ["n"], 500.0), numbers, "data", "raw")
    assert (kept.preprocessing, kept.advice[0][:24]) == ("data", "no better than guessing:")
    assert any("data is kept, as none is better than chance" in line for line in kept.conventions)


def test_what_does_not_fit_the_targets_is_named(scores: SCORES, numbers: Dataset, tmp_path: Path) -> None:
    two = [node("Identity", ["x"], ["y"]), node("ReduceSum", ["x", "axis"], ["z"]), node("Neg", ["z"], ["minus"])]
    shapes = {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 3])}
    file = write_onnx(tmp_path / "net.onnx", two[:1], *shapes)
    says = r"net.onnx gives y 1x3 \(numbers\) an example, not one number each; the data has 1 number to predict;"
    with pytest.raises(ModelError, match=says + r" the task is taken to be regression, and --task gives another"):
        scores(file, numbers)
    outputs = {**shapes[1], "z": (FLOAT, ["n", 1]), "minus": (FLOAT, ["n", 1])}
    file = write_onnx(tmp_path / "more.onnx", two, shapes[0], outputs, {"axis": np.array([1])})
    with pytest.raises(ModelError, match="2 outputs that fit 1 number to predict; choose one: --output z or --output"):
        scores(file, numbers)
    assert scores(file, numbers, output="z").scores["mae"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(ModelError, match=r"has no output 'w'; its outputs: y 1x3 \(numbers\), z"):
        scores(file, numbers, output="w")


@pytest.mark.parametrize("how", ["channels first", "channels last", "classes"])
def test_maps_however_they_are_laid_out(scores: SCORES, tmp_path: Path, how: str) -> None:
    """Each place is of the class whose value is the largest."""
    x = RANDOM.normal(size=(40, 3, 5, 4)).astype(np.float32)
    data = dataset(x, x.argmax(1))
    nodes, shape, kind = {
        "channels first": ([node("Identity", ["x"], ["y"])], ["n", 3, 5, 4], FLOAT),
        "channels last": ([node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], ["n", 5, 4, 3], FLOAT),
        "classes": ([node("ArgMax", ["x"], ["y"], axis=1)], ["n", 1, 5, 4], INT64),
    }[how]
    found = scores(write_onnx(tmp_path / "net.onnx", nodes, {"x": (FLOAT, ["n", 3, 5, 4])}, {"y": (kind, shape)}), data)
    assert (found.task, found.metric) == ("segmentation", "miou")
    assert found.scores == {"miou": 1, "pixel-accuracy": 1}


@pytest.mark.parametrize("ours", [False, True])
def test_labels_may_be_probabilities(scores: SCORES, tmp_path: Path, ours: bool) -> None:
    """Unless the file is one of ours, whose answers are logits."""
    x = RANDOM.normal(size=(60, 3)).astype(np.float32)
    data = dataset(x, (x > 0).astype(int))
    file = write_onnx(
        tmp_path / "net.onnx", [node("Sigmoid", ["x"], ["y"])], {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 3])}
    )
    found = scores(file, data, ours=ours)
    assert (found.task, found.scores["map"]) == ("multi-label", pytest.approx(1))
    assert (found.scores["f1"] == 1) is not ours
    assert any("taken for probabilities: yes above 0.5" in line for line in found.conventions) is not ours


def test_what_is_no_number_is_said(scores: SCORES, numbers: Dataset, tmp_path: Path) -> None:
    nodes = [node("Sub", ["x", "off"], ["d"]), node("Log", ["d"], ["l"]), node("ReduceSum", ["l", "axis"], ["y"])]
    weights = {"axis": np.array([1]), "off": np.float32(100)}
    file = write_onnx(tmp_path / "net.onnx", nodes, {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 1])}, weights)
    found = scores(file, numbers)
    assert any("60 of 60 examples gave NaN" in line for line in found.conventions)
    assert found.scores["mae"] > 1e17


# -------------------------------------------------------------------------------------------------- several inputs


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    """Two inputs: the class is the row of a table of words that is meant, shifted by where the one in `place` is."""
    y = np.arange(60) % 4
    words = RANDOM.integers(0, 4, (60, 1))
    place = np.eye(4, dtype=np.float32)[(y - words[:, 0]) % 4]
    return dataset({"words": words, "place": place}, y)


def write_pairs(path: Path, words: str, place: str, kind: int) -> Path:
    """Logits: each word's row of the table, which is the identity, turned by the place."""
    table = np.stack([np.roll(np.eye(4, dtype=np.float32), shift, 1) for shift in range(4)])
    nodes = [
        node("Gather", ["table", words], ["rows"], axis=0),
        node("Squeeze", ["rows", "one"], ["turn"]),
        node("Unsqueeze", [place, "one"], ["p"]),
        node("MatMul", ["p", "turn"], ["found"]),
        node("Squeeze", ["found", "one"], ["y"]),
    ]
    inputs = {place: (FLOAT, ["n", 4]), words: (kind, ["n", 1])}
    weights = {"table": table, "one": np.array([1])}
    return write_onnx(path, nodes, inputs, {"y": (FLOAT, ["n", 4])}, weights)


@pytest.mark.parametrize(("names", "kind"), [(("words", "place"), INT64), (("ids", "where"), INT32)])
def test_several_inputs_go_in_by_name_or_in_order(
    classes: CLASSES, pairs: Dataset, tmp_path: Path, names: tuple[str, str], kind: int
) -> None:
    file = write_pairs(tmp_path / "net.onnx", *names, kind)
    if names == ("words", "place"):
        found = classes(file, pairs)
        assert (found.accuracy, found.input, found.output) == (1, "words, place", "y")
        assert any("words goes into words ?x1 (int64)" in line for line in found.conventions)
        assert found.conventions.count("input words takes int64 and has no scale: it is given raw values") == 1
        return
    # The file's first input is the other one, and its names do not say so.
    with pytest.raises(ModelError, match=r"input where of net.onnx takes \?x4, words of the data has 1"):
        classes(file, pairs)
    turned = dataset({name: pairs.train.x[name] for name in ("place", "words")}, pairs.train.y)
    found = classes(file, turned)
    assert found.accuracy == 1
    assert "place, words of the data go into where, ids in this order: the names are others" in found.conventions


def test_an_input_that_is_missing_is_named(classes: CLASSES, pairs: Dataset, tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "net.onnx", "words", "place", INT64)
    other = dataset({"words": pairs.train.x["words"], "a": RANDOM.normal(size=(48, 2)), "b": np.ones((48, 1))},
                    pairs.train.y)  # fmt: skip
    with pytest.raises(ModelError, match=r"takes 2 inputs .*, and the data have words, a, b; give --data with place"):
        classes(file, other)
    found = classes(file, pairs, given=given_for([file], inputs=["place=1"])[0])
    assert (found.input, found.batch) == ("words", 1)
    assert any("input place gets the same value for every example (--input)" in line for line in found.conventions)
    more = dataset({**{name: pairs.train.x[name] for name in ("words", "place")}, "c": np.ones((48, 2))}, pairs.train.y)
    found = classes(file, more)
    assert found.accuracy == 1
    assert "c of the data is left out: the file has no such input" in found.conventions


def test_a_tflite_file_of_two_inputs(classes: CLASSES, tmp_path: Path) -> None:
    """Their names are those that converters give; the class is where both together are largest."""
    a, b = RANDOM.normal(size=(2, 60, 3)).astype(np.float32)
    data = dataset({"b": b, "a": a}, (a + 2 * b).argmax(1))
    file = write_sum(tmp_path / "net.tflite", 3)
    found = classes(file, data)
    assert (found.accuracy, found.input) == (1, "serving_default_b:0, serving_default_a:0")


def test_inputs_of_different_batches_are_refused(scores: SCORES, tmp_path: Path) -> None:
    nodes = [
        node("ReduceSum", ["a"], ["s"], keepdims=0),
        node("ReduceSum", ["b", "axis"], ["t"], keepdims=1),
        node("Add", ["s", "t"], ["y"]),
    ]
    inputs = {"a": (FLOAT, [1, 2]), "b": (FLOAT, [2, 3])}
    file = write_onnx(tmp_path / "net.onnx", nodes, inputs, {"y": (FLOAT, [2, 1])}, {"axis": np.array([1])})
    x = {"a": RANDOM.normal(size=(40, 2)), "b": RANDOM.normal(size=(40, 3))}
    with pytest.raises(ModelError, match=r"take batches of \[1, 2\] examples, expected one size"):
        scores(file, dataset(x, RANDOM.normal(size=40).astype(np.float32)))

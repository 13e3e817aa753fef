"""Files of others, made small: what they take and give is found out, said, and never silently bent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.stateful_tflite import write_recurrent, write_resource
from fakes.tiny_models import write_endless, write_onnx
from onnx import TensorProto, helper

from edgeprune.core.errors import DeviceError, ModelError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Silent
from edgeprune.data.arrays import from_arrays
from edgeprune.data.dataset import Dataset, Preprocessing
from edgeprune.data.preprocessing import resolve
from edgeprune.data.split import make_dataset
from edgeprune.devices import find_device, open_session
from edgeprune.devices.local import LocalSession
from edgeprune.profilers.accuracy import accuracy_on_device
from edgeprune.profilers.inputs import given_for
from edgeprune.profilers.records import Accuracy
from edgeprune.profilers.ways import Asked, Scaling

FLOAT, UINT8, INT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64
node = helper.make_node
Judge = Callable[..., Accuracy]


def dataset(x: np.ndarray, y: np.ndarray, classes: tuple[str, ...] | None = None) -> Dataset:
    raw = from_arrays({"x_train": x, "y_train": y, "x_test": x, "y_test": y}, "made", classes=classes)
    return make_dataset("made", raw, seed=0, validation_share=0.2)


def auto(data: Dataset) -> tuple[Scaling, ...]:
    """As `--preprocessing auto` has them for a file that says nothing."""
    names = {"of the data": data.preprocessing}
    names |= {name: resolve(how, data) for name, how in (("unit", "unit"), ("raw", "none"), ("0.5,0.5", "0.5,0.5"))}
    return tuple(Scaling(*each) for each in names.items())


@pytest.fixture(scope="module")
def open_device() -> Iterator[LocalSession]:
    with open_session(find_device("local")) as opened:
        yield opened


@pytest.fixture
def judge(open_device: LocalSession) -> Judge:
    def run(file: Path, data: Dataset, scalings: tuple[Scaling, ...] | None = None, **asked: Any) -> Accuracy:
        runtime = "onnxruntime" if file.suffix == ".onnx" else "litert"
        # Plain unless a test is about scalings: one way to feed images needs one process less.
        chosen = scalings or (Scaling("unit", resolve("unit", data)),)
        raw = scalings is None or len(scalings) > 1
        how = Asked(chosen, raw_integers=raw, **asked)
        return accuracy_on_device(open_device, MeasureSettings(runtime), file, data, how, Silent())

    return run


@pytest.fixture(scope="module")
def pixels() -> Dataset:
    """Ten classes of 2x5 images: the brightest pixel is the class, whatever the scaling."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 10
    x = random.integers(0, 100, (60, 10), dtype=np.uint8)
    x[np.arange(60), y] = 200
    return dataset(x.reshape(60, 1, 2, 5), y)


@pytest.fixture(scope="module")
def levels() -> Dataset:
    """Four classes of 4x4 images by brightness, so that a wrong scaling is seen."""
    random = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (32 + 64 * y)[:, None] + random.integers(-20, 21, (120, 16))
    return dataset(x.astype(np.uint8).reshape(120, 1, 4, 4), y)


def write_levels(path: Path, kind: int, scale: float = 1.0, shift: float = 0.0, first: list | None = None) -> Path:
    """The class whose brightness, times `scale` plus `shift`, is nearest."""
    centers = np.array([[32, 96, 160, 224]], np.float32) * scale + shift
    nodes = [
        *(first or [node("Cast", ["x"], ["f"], to=FLOAT)]),
        node("ReduceMean", ["f"], ["m"], axes=[1, 2, 3], keepdims=0),
        node("Unsqueeze", ["m", "one"], ["u"]),
        node("Sub", ["u", "centers"], ["d"]),
        node("Abs", ["d"], ["a"]),
        node("Neg", ["a"], ["y"]),
    ]
    weights = {"centers": centers, "one": np.array([1])}
    weights |= {"scale": np.float32(2.0), "zero": np.int8(-128)} if first else {}
    return write_onnx(path, nodes, {"x": (kind, [1, 1, 4, 4])}, {"y": (FLOAT, [1, 4])}, weights)


@pytest.mark.parametrize(
    ("kind", "shift", "said"),
    [
        (UINT8, 0.0, "is given raw pixels"),
        (INT8, -128.0, "is given raw pixels - 128"),
        (INT64, 0.0, "given raw pixels"),
    ],
)
def test_integers_without_scale_take_raw_pixels(
    judge: Judge, levels: Dataset, tmp_path: Path, kind: int, shift: float, said: str
) -> None:
    file = write_levels(tmp_path / "net.onnx", kind, shift=shift)
    found = judge(file, levels, auto(levels))
    assert found.accuracy == 1
    assert found.preprocessing == "raw"
    assert any(said in line and "has no scale" in line for line in found.conventions)
    # Asked for anything that does not fit, they are refused and not cut off.
    scaled = Scaling("of the data", levels.preprocessing)
    with pytest.raises(ModelError, match=r"expected whole numbers .* got -?[0-9.]+ to [0-9.]+"):
        judge(file, levels, (scaled,))


def test_integers_whose_scale_is_in_the_graph_are_quantised(judge: Judge, levels: Dataset, tmp_path: Path) -> None:
    first = [node("DequantizeLinear", ["x", "scale", "zero"], ["f"])]
    found = judge(write_levels(tmp_path / "net.onnx", INT8, first=first), levels, auto(levels))
    assert (found.accuracy, found.preprocessing) == (1, "raw")
    assert any("divided by its scale 2, which the operators that read it hold" in line for line in found.conventions)


@pytest.mark.parametrize(("scale", "name"), [(1.0, "raw"), (1 / 255, "unit")])
def test_the_scaling_that_fits_is_taken_and_said(
    judge: Judge, levels: Dataset, tmp_path: Path, scale: float, name: str
) -> None:
    found = judge(write_levels(tmp_path / "net.onnx", FLOAT, scale), levels, auto(levels))
    assert (found.accuracy, found.preprocessing) == (1, name)
    shares = {way.preprocessing: way.correct / way.images for way in found.tried}
    assert shares[name] == 1
    assert shares["of the data"] < 0.8
    assert not found.advice


def test_where_all_scalings_fit_the_datas_own_is_kept(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    file = write_onnx(
        tmp_path / "net.onnx", [node("Flatten", ["x"], ["y"])], {"x": (FLOAT, ["n", 1, 2, 5])}, {"y": (FLOAT, None)}
    )
    found = judge(file, pixels, auto(pixels))
    assert (found.accuracy, found.preprocessing, len(found.tried)) == (1, "of the data", 4)


@pytest.fixture(scope="module")
def colours() -> Dataset:
    """Three classes of 3x3 colour images: the brightest channel."""
    random = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = random.integers(0, 100, (90, 3, 3, 3), dtype=np.uint8)
    x[np.arange(90), y] += 100
    return dataset(x, y)


@pytest.mark.parametrize(
    ("shape", "last"), [([1, 27], True), ([2, 27], False), ([1, 3, 3, 3], True), ([27], True), (["n", 9, 3], False)]
)
def test_both_orders_are_tried_where_both_fit(
    judge: Judge, colours: Dataset, tmp_path: Path, shape: list[Any], last: bool
) -> None:
    """Flat images, and those whose sides do not tell where the channels are; with batches of 2, and without any."""
    channel = np.arange(27) % 3 if last else np.arange(27) // 9
    weight = np.eye(3, dtype=np.float32)[channel]
    rows = 2 if shape[0] == 2 else 1
    nodes = [node("Reshape", ["x", "flat"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    weights = {"w": weight, "flat": np.array([rows, 27])}
    found = judge(
        write_onnx(tmp_path / "net.onnx", nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}, weights), colours
    )
    assert found.accuracy == 1
    word = ("NHWC" if last else "as they come") if shape == [1, 3, 3, 3] else ("HWC" if last else "CHW")
    assert word in found.layout
    assert len(found.tried) == 2
    assert max(way.correct for way in found.tried) == found.tried[0].images
    assert min(way.correct for way in found.tried) < found.tried[0].images


def test_fixed_batches_are_filled_and_said(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    reshape = node("Reshape", ["x", "flat"], ["y"])
    file = write_onnx(
        tmp_path / "net.onnx",
        [reshape],
        {"x": (FLOAT, [8, 10])},
        {"y": (FLOAT, [8, 10])},
        {"flat": np.array([8, 10])},
    )
    found = judge(file, pixels)
    assert (found.correct, found.images, found.batch) == (60, 60, 8)
    assert any("batches of 8: the last is filled up" in line for line in found.conventions)


# --------------------------------------------------------------------------------------------------------- outputs


def write_outputs(path: Path, *nodes: Any, outputs: dict[str, Any], **weights: Any) -> Path:
    """`flat` (1, 10) holds the pixels of an image of `pixels`."""
    return write_onnx(path, [node("Flatten", ["x"], ["flat"]), *nodes], {"x": (FLOAT, [1, 1, 2, 5])}, outputs, weights)


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABEL = node("ArgMax", ["flat"], ["label"], axis=1, keepdims=0)


def test_labels_that_come_first_are_compared_directly(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    outputs = {"label": (INT64, [1]), "flat": (FLOAT, [1, 10])}
    found = judge(write_outputs(tmp_path / "net.onnx", LABEL, outputs=outputs), pixels)
    assert (found.accuracy, found.output) == (1, "label")
    assert any("label: labels, compared directly" in line for line in found.conventions)
    other = judge(tmp_path / "net.onnx", pixels, output="flat")
    assert (other.accuracy, other.output) == (1, "flat")
    with pytest.raises(ModelError, match=r"no output 'y'; its outputs: label 1 \(integers\), flat 1x10 \(numbers\)"):
        judge(tmp_path / "net.onnx", pixels, output="y")


def test_labels_from_one_on_need_an_offset(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    more = node("Add", ["label", "one"], ["shifted"])
    file = write_outputs(
        tmp_path / "net.onnx", LABEL, more, outputs={"shifted": (INT64, [1])}, one=np.array([1], np.int64)
    )
    with pytest.raises(ModelError, match=r"labels from 1 to 10, .*0 to 9.*--label-offset 1"):
        judge(file, pixels)
    assert judge(file, pixels, label_offset=1).accuracy == 1


@pytest.mark.parametrize("names", ["numbers", "words"])
def test_maps_of_probabilities(judge: Judge, pixels: Dataset, tmp_path: Path, names: str) -> None:
    """As converters from scikit-learn write them: a sequence of maps; the order is the file's own."""
    words, data = WORDS, pixels
    if names == "words":
        order = sorted(words)
        data = dataset(pixels.train.x, pixels.train.y, words)
        labels = {"classlabels_strings": order}
        columns = np.array([words.index(word) for word in order])
        key = TensorProto.STRING
    else:
        labels, columns, key = {"classlabels_int64s": list(range(9, -1, -1))}, np.arange(9, -1, -1), INT64
    values = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
    outputs = {"maps": (helper.make_sequence_type_proto(values), None)}
    turned = node("Gather", ["flat", "columns"], ["turned"], axis=1)
    maps = node("ZipMap", ["turned"], ["maps"], domain="ai.onnx.ml", **labels)
    file = write_outputs(tmp_path / "net.onnx", turned, maps, outputs=outputs, columns=columns.astype(np.int64))
    assert judge(file, data).accuracy == 1


def test_labels_that_are_names(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    words = WORDS
    named = node(
        "LabelEncoder",
        ["label"],
        ["name"],
        domain="ai.onnx.ml",
        keys_int64s=list(range(10)),
        values_strings=list(words),
    )
    file = write_outputs(tmp_path / "net.onnx", LABEL, named, outputs={"name": (TensorProto.STRING, [1])})
    assert judge(file, dataset(pixels.train.x, pixels.train.y, words)).accuracy == 1
    with pytest.raises(ModelError, match="gives the class 'eight', which the data does not have"):
        judge(file, pixels)


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_one_value_for_two_classes(judge: Judge, levels: Dataset, tmp_path: Path, output: str) -> None:
    data = dataset(levels.train.x, levels.train.y // 2)
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        node("Sub", ["m", "half"], ["d"]),
        node("Mul", ["d", "ten"], ["logit"]),
        node("Sigmoid", ["logit"], ["probability"]),
    ]
    weights = {"half": np.float32([0.5]), "ten": np.float32([10])}
    file = write_onnx(tmp_path / "net.onnx", nodes, {"x": (FLOAT, [1, 1, 4, 4])}, {output: (FLOAT, [1])}, weights)
    found = judge(file, data)
    assert found.accuracy == 1
    middle = {"logit": "0", "probability": "0.5"}[output]
    assert any(f"taken for a {output}: class 1 above {middle}" in line for line in found.conventions)


def test_more_outputs_than_classes_need_an_offset(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    background = node("Concat", ["zero", "flat"], ["y"], axis=1)
    file = write_outputs(
        tmp_path / "net.onnx", background, outputs={"y": (FLOAT, [1, 11])}, zero=np.zeros((1, 1), np.float32)
    )
    with pytest.raises(ModelError, match=r"gives 11 numbers an image, the data has 10 classes; .*--label-offset 1"):
        judge(file, pixels)
    found = judge(file, pixels, label_offset=1)
    assert found.accuracy == 1
    assert any("class k is the model's k + 1" in line for line in found.conventions)


def test_outputs_that_fit_alike_are_not_chosen_from(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    nodes = [node("Neg", ["flat"], ["worst"]), node("Identity", ["flat"], ["best"]), node("Size", ["flat"], ["size"])]
    outputs = {"worst": (FLOAT, [1, 10]), "best": (FLOAT, [1, 10])}
    file = write_outputs(tmp_path / "net.onnx", *nodes[:2], outputs=outputs)
    with pytest.raises(ModelError, match="choose one: --output worst or --output best"):
        judge(file, pixels)
    assert judge(file, pixels, output="best").accuracy == 1
    # One that has another size does not count.
    wide = node("Concat", ["flat", "flat"], ["wide"], axis=1)
    file = write_outputs(
        tmp_path / "aux.onnx", wide, nodes[1], outputs={"wide": (FLOAT, [1, 20]), "best": (FLOAT, [1, 10])}
    )
    assert judge(file, pixels).output == "best"


def test_what_is_not_a_number_counts_as_wrong(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    """The logarithm of a value below 0 is taken for the largest by argmax, and here it is where the right class is."""
    nodes = [node("Sub", ["half", "flat"], ["s"]), node("Log", ["s"], ["y"])]
    file = write_outputs(tmp_path / "net.onnx", *nodes, outputs={"y": (FLOAT, [1, 10])}, half=np.float32(1 / 2))
    found = judge(file, pixels)
    assert found.correct == 0
    assert any("60 of 60 images gave NaN" in line for line in found.conventions)


def test_another_order_of_classes_is_found_out(judge: Judge, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = np.arange(120) % 10
    x = random.integers(0, 100, (120, 10), dtype=np.uint8)
    x[np.arange(120), y] = 200
    data = dataset(x.reshape(120, 1, 2, 5), y)
    columns = np.roll(np.arange(10), 1)
    turned = node("Gather", ["flat", "columns"], ["y"], axis=1)
    file = write_outputs(tmp_path / "net.onnx", turned, outputs={"y": (FLOAT, [1, 10])}, columns=columns)
    found = judge(file, data)
    assert found.correct == 0
    assert "no better than chance" in found.advice[0]
    assert any("another order 100.00 %" in line and "9, 0, 1, 2" in line for line in found.advice)


# ----------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("kind", ["tensor", "resource"])
def test_variables_are_reset_before_each_image(judge: Judge, tmp_path: Path, kind: str) -> None:
    """The first two pixels tell the class; what is left of the image before is five times as strong."""
    y = np.random.default_rng(0).permutation(np.arange(60) % 2)
    x = np.eye(2, dtype=np.float32)[y]
    data = dataset(x, y)
    file = tmp_path / "net.tflite"
    write_resource(file, 2) if kind == "resource" else write_recurrent(file, 2)
    plain = (Scaling("none", Preprocessing(1.0, (0.0, 0.0), (1.0, 1.0))),)
    found = judge(file, data, plain)
    assert found.accuracy == 1
    assert any("1 variable, which is reset before each image" in line for line in found.conventions)
    stream = judge(file, data, plain, stream=True)
    assert stream.accuracy < 0.8
    assert any("kept from image to image, in the data's order (--stream)" in line for line in stream.conventions)


def test_a_stream_comes_in_the_datas_order(judge: Judge, tmp_path: Path) -> None:
    """The sum of all images so far is of the right class only where they come as they were given."""
    x = np.array([[3, 2], [-2, 0], [0, -2], [0, 3]], np.float32)
    data = dataset(np.tile(x, (5, 1)), np.array([0, 1, 0, 1] * 5))
    file = write_resource(tmp_path / "net.tflite", 2)
    plain = (Scaling("none", resolve("none", data)),)
    expected = np.cumsum(np.tile(x, (5, 1)), axis=0).argmax(1)
    assert judge(file, data, plain, stream=True).correct == int(np.sum(expected == np.array([0, 1, 0, 1] * 5)))


def test_a_stream_needs_variables(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    file = write_outputs(tmp_path / "net.onnx", outputs={"flat": (FLOAT, [1, 10])})
    with pytest.raises(ModelError, match=r"only \.tflite files have variables; leave out --stream"):
        judge(file, pixels, stream=True)


def test_an_endless_file_says_so_and_is_not_tried_again(
    judge: Judge, open_device: LocalSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    started = []
    start = open_device.start
    monkeypatch.setattr(open_device, "start", lambda probe: started.append(1) or start(probe))
    y = np.arange(40) % 2
    data = dataset(np.ones((40, 2), np.float32), y)
    with pytest.raises(DeviceError, match=r"the first example took longer than 1 s; .*--timeout SECONDS"):
        judge(write_endless(tmp_path / "net.onnx", 2), data, (Scaling("none", resolve("none", data)),), example_s=1.0)
    assert len(started) == 1


# ---------------------------------------------------------------------------------------------------- several inputs


def test_the_input_that_is_left_takes_the_images(judge: Judge, pixels: Dataset, tmp_path: Path) -> None:
    """The answer is right only where `sign` is 1; an input that could be a state is named."""
    nodes = [
        node("Flatten", ["x"], ["flat"]),
        node("Cast", ["sign"], ["s"], to=FLOAT),
        node("Mul", ["flat", "s"], ["y"]),
        node("Add", ["h", "h"], ["hn"]),
    ]
    inputs = {"sign": (INT64, []), "x": (FLOAT, [1, 1, 2, 5]), "h": (FLOAT, [1, 3])}
    file = write_onnx(tmp_path / "net.onnx", nodes, inputs, {"y": (FLOAT, [1, 10]), "hn": (FLOAT, [1, 3])})
    with pytest.raises(ModelError, match=r"takes 3 inputs \(sign one value \(int64\), x .*--input NAME=VALUE"):
        judge(file, pixels, given=given_for([file], inputs=["sign=1"])[0])
    found = judge(file, pixels, given=given_for([file], inputs=["sign=1", "h=0"])[0])
    assert (found.accuracy, found.input, found.output) == (1, "x", "y")
    assert any("input sign gets the same value for every image" in line for line in found.conventions)
    assert any("input h" in line and "output hn" in line and "not carried on" in line for line in found.conventions)
    assert judge(file, pixels, given=given_for([file], inputs=["sign=-1", "h=0"])[0]).correct == 0
    with pytest.raises(ModelError, match="none is left for the images"):
        judge(file, pixels, given=given_for([file], inputs=["sign=1", "h=0", "x=0"])[0])


def test_no_scaling_that_only_guesses_is_chosen(judge: Judge, levels: Dataset, tmp_path: Path) -> None:
    """With the data's own scaling every answer is wrong; with the others all images are of one class, which is more."""
    data = dataset(levels.train.x, np.array([1, 2, 3, 0])[levels.train.y])
    mean, std = data.preprocessing.mean[0], data.preprocessing.std[0]
    found = judge(write_levels(tmp_path / "net.onnx", FLOAT, 1 / 255 / std, -mean / std), data, auto(data))
    shares = {way.preprocessing: way.correct / way.images for way in found.tried}
    assert shares["of the data"] == 0
    assert 0.2 < shares["raw"] < 0.3
    assert found.preprocessing == "of the data"
    assert any("of the data is kept, as none is better than chance" in line for line in found.conventions)
    assert any("another order 100.00 %" in line for line in found.advice)

"""What targets are taken for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Silent
from edgeprune.data.arrays import from_arrays
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import as_given, channels_first, make_dataset
from edgeprune.data.targets import read_names

RNG = np.random.default_rng(0)
FLAT = RNG.normal(size=(40, 5)).astype(np.float32)
PICTURES = RNG.normal(size=(40, 3, 6, 7)).astype(np.float32)
CLASSES = np.arange(40) % 3


def dataset(x: Any, y: Any, task: Any = None) -> Dataset:
    raw = from_arrays({"x_train": x, "y_train": y, "x_test": x, "y_test": y}, "here", task=task)
    return make_dataset("here", raw, seed=0, validation_share=0.25)


@pytest.mark.parametrize(
    ("x", "y", "task", "kind", "dtype", "outputs", "words"),
    [
        (FLAT, CLASSES, None, "classes", np.int64, 3, "3 classes"),
        (FLAT, CLASSES[:, None] > 0, None, "classes", np.int64, 2, "2 classes"),
        (FLAT, (CLASSES > 0).astype(float), None, "classes", np.int64, 2, "2 classes"),
        (FLAT, CLASSES.astype(float), "classification", "classes", np.int64, 3, "3 classes"),
        (FLAT, CLASSES.astype(float), None, "numbers", np.float32, 1, "1 number to predict"),
        (FLAT, CLASSES, "regression", "numbers", np.float32, 1, "1 number to predict"),
        (FLAT, FLAT[:, :2], None, "numbers", np.float32, 2, "2 numbers to predict"),
        (FLAT, FLAT, None, "numbers", np.float32, 5, "5 numbers to predict"),
        ((255 * FLAT).astype(np.uint8), (255 * FLAT).astype(np.uint8), None, "numbers", np.float32, 5, "5 numbers"),
        (FLAT, (FLAT[:, :3] > 0).astype(int), None, "labels", np.float32, 3, "3 labels"),
        (FLAT, np.eye(3)[CLASSES], "multi-label", "labels", np.float32, 3, "3 labels"),
        (PICTURES, (PICTURES[:, 0] > 0).astype(int), None, "map", np.int64, 2, "2 classes for every place"),
        (PICTURES, (PICTURES[:, :1] > 0).astype(np.uint8), None, "map", np.int64, 2, "2 classes for every place"),
        (PICTURES.transpose(0, 2, 3, 1), (PICTURES[:, 0] > 0).astype(int), None, "map", np.int64, 2, "2 classes for"),
        # A class for every step of a sequence.
        (PICTURES[:, 0], (PICTURES[:, 0, :, 0] > 0).astype(int), "segmentation", "map", np.int64, 2, "2 classes"),
        (PICTURES, PICTURES[:, :1], None, "numbers", np.float32, 42, "42 numbers to predict"),
    ],
)  # fmt: skip
def test_what_targets_are_taken_for(x: Any, y: Any, task: Any, kind: str, dtype: Any, outputs: int, words: str) -> None:
    found = dataset(x, y, task)
    assert (found.targets, found.train.y.dtype, found.outputs) == (kind, dtype, outputs)
    assert found.examples.startswith(words)
    assert len(found.train) + len(found.validation) == 40
    assert len(found.test) == 40


@pytest.mark.parametrize(
    ("y", "task", "says"),
    [
        (np.eye(3, dtype=int)[CLASSES], None, "of one-hot rows give argmax.* or --task multi-label"),
        (np.arange(80).reshape(40, 2), None, "where they are numbers, give --task regression"),
        (np.where(CLASSES > 0, np.nan, 1.0), None, "y_train holds NaN"),
        (np.full(40, 1e300) * np.arange(40), None, "too large for float32"),
        (CLASSES + 0.5, "classification", "holds float64, not integers"),
        (CLASSES.astype(float), "multi-label", r"expected 0 or 1 for each of several labels"),
        (CLASSES, "segmentation", r"expected a class for every place, \(N, H, W\) say"),
        (np.array([{}] * 40), None, "holds object, not numbers.*--task regression"),
        (np.zeros((40, 6, 7), int), "segmentation", "one class only"),
    ],
)
def test_what_is_none_of_these_is_one_line(y: Any, task: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        dataset(PICTURES if y.ndim == 3 else FLAT, y, task)


def test_maps_and_numbers_go_with_their_examples_through_the_split() -> None:
    x = np.arange(40 * 6 * 7, dtype=np.float32).reshape(40, 1, 6, 7)
    found = dataset(x, x[:, 0] + 0.5)
    for part in (found.train, found.validation, found.test):
        np.testing.assert_array_equal(part.x[:, 0] + 0.5, part.y)


@pytest.mark.parametrize(
    ("shape", "images", "given"),
    [((20, 12), (1, 20, 12), (20, 12)), ((6, 7, 3), (3, 6, 7), (6, 7, 3)), ((3, 6, 7), (3, 6, 7), None),
     ((4, 6, 7), (4, 6, 7), None), ((1, 3, 6, 7), (1, 3, 6, 7), None), ((5,), (5,), None)],
)  # fmt: skip
def test_inputs_that_were_laid_out_as_images_are_had_as_they_were_given(
    shape: tuple[int, ...], images: tuple[int, ...], given: tuple[int, ...] | None
) -> None:
    x = RNG.normal(size=(40, *shape)).astype(np.float32)
    found = dataset(x, CLASSES)
    assert found.input_shape == images
    back = as_given(found)
    assert (None if back is None else back.input_shape) == given
    if back is not None:
        assert back.fingerprint != found.fingerprint
        assert len(back.preprocessing.mean) == shape[0]
        assert {row.tobytes() for row in np.concatenate([back.train.x, back.validation.x])} == {
            row.tobytes() for row in np.ascontiguousarray(x)
        }


def test_pictures_that_answer_pictures_keep_their_places() -> None:
    """Channels last in both, as image files come: every answer stays beside its pixel, and identity is perfect."""
    x = RNG.integers(0, 255, (40, 6, 7, 3)).astype(np.uint8)
    found = dataset(x, x)
    assert found.train.y.shape[1:] == (3, 6, 7)
    np.testing.assert_array_equal(found.train.x, found.train.y)
    back = as_given(found)
    assert back is not None
    np.testing.assert_array_equal(back.test.x, back.test.y)
    depth = dataset(x, (x[..., :1] / 255).astype(np.float32))
    np.testing.assert_allclose(depth.test.x[:, :1] / 255, depth.test.y, rtol=1e-6)
    bands = dataset(np.repeat(x, 2, axis=3)[..., :4].astype(np.float32), np.repeat(x, 2, axis=3)[..., :4] + 0.5)
    first = channels_first(bands)
    assert first is not None
    np.testing.assert_array_equal(first.train.x + 0.5, first.train.y)


def test_a_scaling_of_channels_is_not_taken_for_one_of_rows() -> None:
    x = RNG.normal(size=(40, 6, 7, 3)).astype(np.float32)
    entry = {"scale": 1.0, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    raw = from_arrays({"x_train": x, "y_train": CLASSES, "x_test": x, "y_test": CLASSES}, "here", entry=entry)
    assert as_given(make_dataset("here", raw, seed=0, validation_share=0.25)) is None
    raw = from_arrays({"x_train": x, "y_train": CLASSES, "x_test": x, "y_test": CLASSES}, "here", entry="none")
    back = as_given(make_dataset("here", raw, seed=0, validation_share=0.25))
    assert back is not None
    np.testing.assert_array_equal(back.preprocessing.apply(back.test.x), back.test.x)


@pytest.mark.parametrize("part", ["train", "test"])
def test_numbers_that_are_all_the_same_cannot_be_predicted(part: str) -> None:
    arrays = {"x_train": FLAT, "y_train": FLAT[:, 0], "x_test": FLAT, "y_test": FLAT[:, 1]}
    with pytest.raises(DataError, match=f"y_{part} holds the same for every example"):
        from_arrays({**arrays, f"y_{part}": np.full(40, 3.5)}, "here")


def test_maps_of_another_size_in_the_test_set_are_refused() -> None:
    maps = (PICTURES[:, 0] > 0).astype(int)
    arrays = {"x_train": PICTURES, "y_train": maps, "x_test": PICTURES, "y_test": maps[:, ::2]}
    with pytest.raises(DataError, match=r"targets of y_train are \(6, 7\), of y_test \(3, 7\)"):
        from_arrays(arrays, "here")


NAMED = {"x_train": np.zeros((6, 4)), "y_train": np.arange(6) % 3, "x_test": np.zeros((3, 4)), "y_test": np.arange(3)}


def test_classes_have_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **NAMED, classes=["cat", "dog", "eel"])
    file = tmp_path / "own.py"
    file.write_text(f"import numpy as np\ndef data(): return dict(np.load({str(tmp_path / 'own.npz')!r}))\n")
    for source in (tmp_path / "own.npz", f"{file}:data"):
        found = load_data(str(source), None, seed=0, progress=Silent())
        assert found.classes == ("cat", "dog", "eel")


def test_labels_have_names() -> None:
    many = {**NAMED, "y_train": np.eye(3)[[0, 1, 2, 0, 1, 2]], "y_test": np.eye(3)}
    assert from_arrays(many, "own", classes=("a", "b", "c"), task="multi-label").classes == ("a", "b", "c")
    with pytest.raises(DataError, match="names 2 labels, and y_train has 3"):
        from_arrays(many, "own", classes=("a", "b"), task="multi-label")
    with pytest.raises(DataError, match="names classes, and the targets are numbers"):
        from_arrays({**NAMED, "y_train": np.arange(6.0), "y_test": np.arange(3.0)}, "own", classes=("a", "b"))
    with pytest.raises(DataError, match=r"y_train: label 2 is outside 0\.\.1"):
        from_arrays(NAMED, "own", classes=("a", "b"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("cat", "a list of names, got 'cat'"),
        (["cat", 3], "a list of names"),
        (["cat", " "], "a list of names"),
        (np.arange(3), "a list of names"),
        (["cat", "dog", "cat"], "got 'cat' twice"),
        (["cat"], "two or more different names in classes, got 1"),
    ],
)
def test_names_that_cannot_be(given: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_names(given, "own")


def test_anomalies_are_set_apart(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    marks = np.arange(20) % 3 == 0
    np.savez(tmp_path / "a.npz", x_train=x[:40], y_train=x[:40], x_test=x[40:], y_test=x[40:], anomalies=marks)
    data = load_data(str(tmp_path / "a.npz"), None, seed=0, progress=Silent())
    assert data.anomalous is not None
    assert np.array_equal(data.anomalous.x, x[40:][marks])
    assert {*map(bytes, data.test.x)} == {*map(bytes, x[40:][~marks])}
    assert np.array_equal(data.test.x, data.test.y)


@pytest.mark.parametrize(
    ("y", "marks", "says"),
    [
        (np.linspace(0, 1, 40), np.zeros(40), "marks no test example"),
        (np.linspace(0, 1, 40), np.arange(40), "expected 0 or 1 in anomalies for each of 40"),
        (np.linspace(0, 1, 40), np.ones(3), "got float64 of shape"),
        (CLASSES, np.arange(40) % 2, "told by errors of reconstruction"),
    ],
)
def test_anomalies_that_cannot_be(tmp_path: Path, y: np.ndarray, marks: np.ndarray, says: str) -> None:
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y, anomalies=marks)
    with pytest.raises(DataError, match=says):
        load_data(str(tmp_path / "a.npz"), None, seed=0, progress=Silent())

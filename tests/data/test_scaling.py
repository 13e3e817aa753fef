"""How inputs are scaled, as people write it: on the command line, beside their arrays, in an .npz."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.progress import Silent
from edgeprune.data.arrays import from_arrays
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset, Preprocessing
from edgeprune.data.preprocessing import describe, resolve, write_numbers
from edgeprune.data.split import make_dataset, preprocessed


def pictures(channels: int = 3, dtype: Any = np.uint8, **more: Any) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (30, channels, 4, 4)).astype(dtype)
    y = np.arange(30) % 3
    raw = from_arrays({"x_train": x, "y_train": y, "x_test": x, "y_test": y}, "here", **more)
    return make_dataset("here", raw, seed=0, validation_share=0.2)


@pytest.mark.parametrize(
    ("text", "at_255", "at_0"),
    [
        ("none", (255, 255, 255), (0, 0, 0)),
        ("unit", (1, 1, 1), (0, 0, 0)),
        ("0.5,0.5", (1, 1, 1), (-1, -1, -1)),
        ("0,0.5,1,0.5,0.25,1", (2, 2, 0), (0, -2, -1)),
    ],
)
def test_pictures_are_scaled_to_one_before_mean_and_std(
    text: str, at_255: tuple[float, ...], at_0: tuple[float, ...]
) -> None:
    given = resolve(text, pictures())
    for value, wanted in ((255, at_255), (0, at_0)):
        got = given.apply(np.full((1, 3, 1, 1), value, np.uint8)).ravel()
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_floats_are_taken_as_they_are() -> None:
    data = pictures(dtype=np.float32)
    assert resolve("unit", data) == resolve("none", data) == Preprocessing(1.0, (0.0,) * 3, (1.0,) * 3)
    assert resolve("127.5,127.5", data).apply(np.full((1, 3, 1, 1), 255.0))[0, 0, 0, 0] == 1.0
    assert resolve("auto", data) == resolve("data", data) == data.preprocessing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nome", "expected auto, data, none, unit or MEAN,STD, got 'nome'; did you mean 'none'"),
        ("0.5", "as many means as standard deviations, got '0.5'"),
        ("0.5,0.5,0.5", "as many means as standard deviations"),
        ("", "expected auto, data, none, unit or MEAN,STD, got ''"),
        ("0.5,", "got '0.5,'"),
        ("0.5,0", "'0.5,0': preprocessing that cannot be: expected every std above 0, got 0.0"),
        ("0.5,-1", "expected every std above 0, got -1.0"),
        ("0.5,1e-60", "expected every std above 0, got 1e-60"),
        ("nan,1", "expected finite numbers in mean, got nan"),
        ("0,inf", "expected finite numbers in std, got inf"),
        ("0,1e-30", "too large for float32"),
        ("0.1,0.2,1,1", "expected 1 or 3 means, one for each of the data's channels or features, got 2"),
    ],
)
def test_numbers_that_cannot_be_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(text, replace(pictures(), unit=1e9) if "1e-30" in text else pictures())
    assert says in str(caught.value)


def test_what_is_written_is_what_is_read() -> None:
    data = pictures()
    for text in ("0.5,0.5", "0.1,0.2,0.3,0.5,0.25,0.125"):
        assert write_numbers(resolve(text, data), data.unit) == text
    assert write_numbers(Preprocessing(1.0, (127.5,) * 3, (255.0,) * 3), data.unit) == "0.5,1"


@pytest.mark.parametrize(
    ("entry", "scale", "mean", "std"),
    [
        ("none", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ({"scale": 1 / 128, "mean": 1, "std": 1.0}, 1 / 128, (1.0,) * 3, (1.0,) * 3),
        (
            {"scale": np.float32(0.5), "mean": np.array([1, 2, 3]), "std": [1, 2, 3]},
            0.5,
            (1.0, 2.0, 3.0),
            (1.0, 2.0, 3.0),
        ),
        ('{"scale": 2, "mean": [0], "std": 4}', 2.0, (0.0,) * 3, (4.0,) * 3),
    ],
)
def test_data_may_say_how_they_are_scaled(entry: Any, scale: float, mean: Any, std: Any) -> None:
    data = pictures(entry=entry)
    assert data.preprocessing == Preprocessing(scale, mean, std)
    assert data.carried
    assert data.fingerprint != pictures().fingerprint


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("raw", "expected 'none' or JSON, got 'raw'"),
        (3, "expected 'none' or a mapping, got int"),
        ([1, 2], "expected 'none' or a mapping, got list"),
        pytest.param("[" * 100_000, "expected 'none' or JSON", id="deep"),
        ({"scale": 1.0, "mean": 0.0}, "got no 'std'"),
        ({"scale": 1.0, "mean": 0.0, "std": 1.0, "sdt": 1.0}, "got unknown key 'sdt'"),
        ({"scale": [1, 2], "mean": 0.0, "std": 1.0}, "expected one scale, got 2"),
        ({"scale": 1.0, "mean": [0.0, 0.0], "std": 1.0}, "expected 1 or 3 values in mean"),
        ({"scale": 1.0, "mean": [], "std": 1.0}, "expected 1 or 3 values in mean"),
        ({"scale": 1.0, "mean": [[0.0] * 3], "std": 1.0}, "expected a number or a flat list of numbers"),
        ({"scale": 0.0, "mean": 0.0, "std": 1.0}, "expected a finite scale other than 0"),
        ({"scale": 1e-60, "mean": 0.0, "std": 1.0}, "expected a finite scale other than 0"),
        ({"scale": True, "mean": 0.0, "std": 1.0}, "expected numbers, got bool"),
        ({"scale": "1", "mean": 0.0, "std": 1.0}, "expected a number or a flat list"),
        ({"scale": None, "mean": 0.0, "std": 1.0}, "expected a number or a flat list"),
        ({"scale": 1.0, "mean": 0.0, "std": 0.0}, "expected every std above 0, got 0.0"),
        ({"scale": 1.0, "mean": float("nan"), "std": 1.0}, "expected finite numbers in mean, got nan"),
        ({"scale": 1.0, "mean": 10**400, "std": 1.0}, "a number is too large"),
        ('{"scale": 1, "mean": NaN, "std": 1}', "expected finite numbers in mean, got nan"),
        ({"scale": 1e38, "mean": 0.0, "std": 1e-3}, "makes inputs too large for float32"),
        (np.full(3, 0xFFFFFFFF, np.uint32).view("<U3")[0:1].reshape(()), "expected text, got characters that do not"),
    ],
)
def test_entries_that_cannot_be_are_refused(entry: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        pictures(entry=entry)
    assert says in str(caught.value)
    assert str(caught.value).startswith("here: preprocessing")


def test_an_npz_says_it_in_text(tmp_path: Path) -> None:
    data = pictures()
    arrays = {"x_train": data.train.x, "y_train": data.train.y, "x_test": data.test.x, "y_test": data.test.y}

    def loaded(entry: Any) -> Preprocessing:
        np.savez(tmp_path / "a.npz", **arrays, preprocessing=entry)
        return load_data(str(tmp_path / "a.npz"), None, seed=0, progress=Silent()).preprocessing

    assert loaded("none") == Preprocessing(1.0, (0.0,) * 3, (1.0,) * 3)
    assert loaded(json.dumps({"scale": 0.5, "mean": 1, "std": 2})) == Preprocessing(0.5, (1.0,) * 3, (2.0,) * 3)
    with pytest.raises(DataError, match=r"preprocessing is saved as text, preprocessing=json.dumps"):
        loaded({"scale": 0.5, "mean": 1, "std": 2})


def test_a_function_says_it_in_its_dict(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    x, y = np.random.default_rng(0).random((40, 5), dtype=np.float32), np.arange(40) % 2\n"
        "    return {'x_train': x, 'y_train': y, 'x_test': x, 'y_test': y, 'preprocessing': 'none'}\n"
    )
    found = load_data(f"{tmp_path}/d.py:data", None, seed=0, progress=Silent())
    assert found.preprocessing == Preprocessing(1.0, (0.0,) * 5, (1.0,) * 5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Preprocessing(1.0, (0.0,), (1.0,)), "none (values as stored)"),
        (Preprocessing(1 / 255, (0.0,) * 3, (1.0,) * 3), "x / 255"),
        (Preprocessing(1 / 255, (0.5,) * 3, (0.25,) * 3), "(x / 255 - 0.5) / 0.25"),
        (Preprocessing(2.0, (0.1, 0.2, 0.3, 0.4), (1.0,) * 4), "(x * 2 - [0.1, 0.2, 0.3, ...]) / 1"),
    ],
)
def test_scaling_in_words(given: Preprocessing, said: str) -> None:
    assert describe(given) == said


def test_another_scaling_is_another_fingerprint() -> None:
    data = pictures()
    other = preprocessed(data, resolve("none", data))
    assert other.fingerprint != data.fingerprint
    assert preprocessed(other, data.preprocessing).fingerprint == data.fingerprint
    assert preprocessed(data, data.preprocessing) is data

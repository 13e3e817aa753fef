"""Several inputs, and integers: from a function or an .npz to what a network is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.inputs import InputSpec, fields
from edgeprune.core.progress import Silent
from edgeprune.data.arrays import from_arrays
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import EachInput, Preprocessing
from edgeprune.data.preprocessing import describe, resolve
from edgeprune.data.split import as_integers, first_examples, in_order, in_own_order, make_dataset, preprocessed
from edgeprune.models.inputs import Several
from edgeprune.training.batches import Batches

RNG = np.random.default_rng(0)


def some(count: int, **others: Any) -> dict[str, Any]:
    return {
        "motion": RNG.normal(3, 2, (count, 3, 8)).astype(np.float32),
        "words": RNG.integers(0, 40, (count, 5)),
        "picture": RNG.integers(0, 256, (count, 2, 4, 4), dtype=np.uint8),
        **others,
    }


def arrays(train: Any = None, test: Any = None) -> dict[str, Any]:
    x, x_test = train or some(60), test or some(20)
    return {"x_train": x, "y_train": np.arange(60) % 3, "x_test": x_test, "y_test": np.arange(20) % 3}


def dataset(given: dict[str, Any] | None = None, **options: Any):
    return make_dataset("own", from_arrays(given or arrays(), "own", **options), seed=0, validation_share=0.2)


def test_each_input_is_split_alike_and_scaled_for_itself() -> None:
    given = arrays()
    found = dataset(given)
    assert found.input_shape == (
        InputSpec("motion", (3, 8)), InputSpec("words", (5,)), InputSpec("picture", (2, 4, 4)),
    )  # fmt: skip
    taken = fields(found.train.x)
    # Each row of one input stands beside its row of the others.
    for row in range(0, len(found.train), 7):
        index = next(i for i in range(60) if np.array_equal(given["x_train"]["motion"][i], taken["motion"][row]))
        np.testing.assert_array_equal(taken["words"][row], given["x_train"]["words"][index])
        np.testing.assert_array_equal(taken["picture"][row], given["x_train"]["picture"][index])
        assert found.train.y[row] == given["y_train"][index]
    inputs = Batches(found.train, found.preprocessing).inputs(slice(None))
    assert isinstance(inputs, Several)
    assert inputs.names == ("motion", "words", "picture")
    for x in inputs.tensors:
        assert x.dtype == torch.float32
        assert x.is_contiguous()
        assert abs(float(x.mean())) < 1e-3
    np.testing.assert_array_equal(fields(in_own_order(found.test).x)["words"], given["x_test"]["words"])
    assert len(first_examples(found, 10).train) == 10


def test_integers_are_taken_as_such_where_a_network_wants_them() -> None:
    found = as_integers(dataset())
    assert found is not None
    assert found.input_shape == (
        InputSpec("motion", (3, 8)), InputSpec("words", (5,), "int64", 40), InputSpec("picture", (2, 4, 4)),
    )  # fmt: skip
    inputs = Batches(found.train, found.preprocessing).inputs(torch.tensor([3, 1]))
    assert isinstance(inputs, Several)
    assert inputs.tensors[1].dtype == torch.int64
    np.testing.assert_array_equal(inputs.tensors[1], fields(found.train.x)["words"][[3, 1]])
    assert describe(found.preprocessing).split("; ")[1] == "words: integers as stored"


def test_one_input_of_integers() -> None:
    words = RNG.integers(0, 30, (80, 6))
    given = {"x_train": words[:60], "y_train": np.arange(60) % 2, "x_test": words[60:], "y_test": np.arange(20) % 2}
    plain = dataset(given)
    assert plain.input_shape == (6,)
    found = as_integers(plain)
    assert found is not None
    assert found.input_shape == (InputSpec("input", (6,), "int64", int(words.max()) + 1),)
    x = Batches(found.train, found.preprocessing).inputs(slice(0, 4))
    assert isinstance(x, torch.Tensor)
    assert x.dtype == torch.int64
    assert describe(found.preprocessing) == "integers as stored"
    assert found.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    "x", [RNG.integers(-3, 30, (80, 6)), RNG.integers(0, 30, (80, 6)).astype(np.int16), RNG.normal(size=(80, 6)),
          RNG.integers(1 << 24, 1 << 25, (80, 6))],
)  # fmt: skip
def test_what_cannot_be_indices_stays_real(x: Any) -> None:
    given = {"x_train": x[:60], "y_train": np.arange(60) % 2, "x_test": x[60:], "y_test": np.arange(20) % 2}
    assert as_integers(dataset(given)) is None


def test_the_order_of_inputs_can_be_changed() -> None:
    found = dataset()
    other = in_order(found, ["words", "picture", "motion"])
    assert [spec.name for spec in other.input_shape] == ["words", "picture", "motion"]
    np.testing.assert_array_equal(fields(other.train.x)["motion"], fields(found.train.x)["motion"])
    assert list(other.preprocessing.inputs) == ["words", "picture", "motion"]
    assert other.fingerprint != found.fingerprint
    assert in_order(found, ["motion", "words", "picture"]) is found


def test_a_tuple_of_inputs_has_names_too() -> None:
    given = arrays(tuple(some(60).values()), tuple(some(20).values()))
    assert [spec.name for spec in dataset(given).input_shape] == ["input0", "input1", "input2"]
    # A tuple with a member for each target holds the rows of one input.
    rows = {"x_train": tuple(RNG.normal(size=(60, 4))), "y_train": np.arange(60) % 2,
            "x_test": tuple(RNG.normal(size=(20, 4))), "y_test": np.arange(20) % 2}  # fmt: skip
    assert dataset(rows).input_shape == (4,)


def test_an_npz_holds_a_member_for_each(tmp_path: Path) -> None:
    given = arrays()
    members = {f"{part}.{name}": each for part in ("x_train", "x_test") for name, each in given[part].items()}
    np.savez(tmp_path / "own.npz", y_train=given["y_train"], y_test=given["y_test"], **members)
    found = load_data(str(tmp_path / "own.npz"), None, seed=0, progress=Silent())
    assert [spec.name for spec in found.input_shape] == ["motion", "words", "picture"]
    assert found.whole == ("words",)
    np.testing.assert_array_equal(fields(in_own_order(found.test).x)["motion"], given["x_test"]["motion"])


def test_what_the_data_say_of_their_scaling() -> None:
    found = dataset(entry={"motion": {"scale": 1, "mean": 3, "std": 2}})
    assert found.preprocessing == EachInput(
        {"motion": Preprocessing(1, (3.0,) * 3, (2.0,) * 3), "words": Preprocessing(1, (0.0,) * 5, (1.0,) * 5),
         "picture": Preprocessing(1, (0.0,) * 2, (1.0,) * 2)}
    )  # fmt: skip
    assert found.carried
    assert resolve("none", found) == dataset(entry="none").preprocessing
    assert preprocessed(found, resolve("none", found)).fingerprint != found.fingerprint
    for text in ("unit", "0.5,0.5"):
        with pytest.raises(UsageError, match=rf"--preprocessing {text} is of one input of real numbers"):
            resolve(text, found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"x_test": some(20) | {"extra": RNG.normal(size=(20, 2))}},
            "inputs of x_train are motion, words, picture, of ",
        ),
        ({"x_test": RNG.normal(size=(20, 2))}, "of x_test one input"),
        ({"x_train": some(60, words=RNG.integers(0, 40, (59, 5)))}, "words of x_train has 59 examples and y_train 60"),
        ({"x_train": some(60, words=RNG.integers(0, 40, (60, 4)))}, r"examples of words are \(4,\) float32 in x_train"),
        ({"x_train": some(60, words=np.full((60, 5), np.nan))}, "words of x_train holds NaN"),
        ({"x_train": some(60, words=np.array(["a"] * 60))}, "words of x_train has shape"),
        ({"x_train": some(60) | {"a b": 1}, "x_test": some(20) | {"a b": 1}}, "an input is called 'a b'"),
    ],
)
def test_inputs_that_do_not_fit(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        dataset(arrays() | change)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"pulse": "none"}, "expected entries for motion, words, picture, got pulse"),
        ({"motion": {"scale": 1, "mean": [1, 2], "std": 1}}, "motion: preprocessing: expected 1 or 3 values in mean"),
        ("{", "expected 'none' or JSON"),
        ({"motion": {"scale": 1e38, "mean": 0, "std": 1}}, "preprocessing makes motion too large"),
    ],
)
def test_entries_that_cannot_be(entry: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        dataset(entry=entry)

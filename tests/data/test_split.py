from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.plain import from_json, to_json
from edgeprune.data.arrays import from_arrays
from edgeprune.data.dataset import Preprocessing
from edgeprune.data.split import IMAGENET_MEAN, IMAGENET_STD, choose_preprocessing, make_dataset, stratified


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_stratified_takes_a_share_of_every_class(labels, share, seed):
    y = np.array(labels)
    rest, taken = stratified(y, share, seed)
    assert sorted([*rest, *taken]) == list(range(len(y)))
    for label in set(labels):
        count = labels.count(label)
        assert (y[rest] == label).sum() >= 1
        assert abs((y[taken] == label).sum() - count * share) <= 1
        assert count == 1 or (y[taken] == label).any()


def test_seeds(arrays):
    raw = from_arrays(arrays, "here")
    one, same, other = (make_dataset("a", raw, seed=seed, validation_share=0.2) for seed in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert np.array_equal(one.train.x, same.train.x)
    assert np.array_equal(one.test.x, other.test.x)
    assert (len(one.train), len(one.validation), len(one.test)) == (32, 8, 8)
    assert np.bincount(one.validation.y).tolist() == [2, 2, 2, 2]
    assert one.input_shape == (1, 5, 6)


def test_no_example_is_in_two_splits_and_labels_follow(arrays):
    arrays["x_train"] = np.arange(40, dtype=np.float32)[:, None]
    arrays["x_test"] = 100 + np.arange(8, dtype=np.float32)[:, None]
    data = make_dataset("a", from_arrays(arrays, "here"), seed=3, validation_share=0.1)
    seen = np.concatenate([split.x[:, 0] for split in (data.train, data.validation)])
    assert sorted(seen) == list(range(40))
    assert sorted(data.test.x[:, 0]) == list(range(100, 108))
    for split, offset in ((data.train, 0), (data.validation, 0), (data.test, 100)):
        assert np.array_equal((split.x[:, 0] - offset) % 4, split.y)
    assert data.train.y.tolist() != sorted(data.train.y.tolist())


def test_the_fingerprint_sees_one_pixel_and_one_class_name(arrays):
    def print_of(**changes):
        raw = from_arrays(arrays, "here", classes=changes.get("classes"))
        return make_dataset("a", raw, seed=0, validation_share=0.1).fingerprint

    first = print_of()
    assert print_of(classes=("a", "b", "c", "d")) != first
    arrays["x_test"][3, 2, 1] ^= 1
    assert print_of() != first


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, float("nan")])
def test_shares_out_of_range(arrays, fails, share):
    raw = from_arrays(arrays, "here")
    fails(UsageError, "not between 0 and 1", make_dataset, "a", raw, seed=0, validation_share=share)


def test_too_few_to_validate(arrays, fails):
    arrays["x_train"], arrays["y_train"] = arrays["x_train"][:4], arrays["y_train"][:4]
    raw = from_arrays(arrays, "here")
    fails(DataError, "none can validate", make_dataset, "a", raw, seed=0, validation_share=0.1)


def test_colour_images_get_imagenets_constants():
    got = choose_preprocessing(np.zeros((2, 3, 4, 4), np.uint8))
    assert got == Preprocessing(1 / 255, IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("shape", [(50, 1, 4, 5), (50, 2, 4, 5), (50, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_everything_else_is_standardised(shape, dtype):
    x = (np.random.default_rng(0).random(shape) * 200 + 20).astype(dtype)
    got = choose_preprocessing(x)
    assert got.scale == (1 / 255 if dtype == np.uint8 else 1.0)
    out = got.apply(x)
    assert out.dtype == np.float32
    assert out.shape == x.shape
    axes = (0, 2, 3)[: max(1, x.ndim - 1)]
    assert np.allclose(out.mean(axes), 0, atol=1e-4)
    assert np.allclose(out.std(axes), 1, atol=1e-4)


@pytest.mark.parametrize("value", [0, 0.1, 1e6])
def test_a_constant_feature_becomes_zero(value):
    x = np.random.default_rng(0).random((1000, 3)).astype(np.float32)
    x[:, 1] = value
    got = choose_preprocessing(x)
    assert got.std[1] == 1
    assert np.allclose(got.apply(x)[:, 1], 0, atol=1e-6)


def test_preprocessing_goes_to_json_and_back():
    one = Preprocessing(0.5, (0.1, 0.2), (1.0, 2.0))
    assert from_json(Preprocessing, to_json(one)) == one

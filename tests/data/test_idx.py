from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Silent
from edgeprune.data.idx import FASHION_MNIST, FILES, MNIST, load_idx, read_idx


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("where", ["mnist", "MNIST/raw", "."])
def test_finds_the_files(tmp_path, idx_folder, where):
    idx_folder(tmp_path / where)
    raw = load_idx(MNIST, tmp_path, Silent())
    assert raw.x_train.shape == (60, 1, 28, 28)
    assert raw.x_train.dtype == np.uint8
    assert raw.classes == tuple("0123456789")
    assert raw.x_train.flags.writeable


@pytest.mark.parametrize("where", ["fashion_mnist", "fashion-mnist"])
def test_finds_fashion(tmp_path, idx_folder, where):
    idx_folder(tmp_path / where)
    assert load_idx(FASHION_MNIST, tmp_path, Silent()).classes[9] == "Ankle boot"


def _gz(data: bytes) -> bytes:
    return gzip.compress(data)


_GOOD = idx_bytes(np.zeros((60, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (_gz(_GOOD)[:-20], "is truncated"),
        (_gz(_GOOD)[:5], "is truncated"),
        (b"", "no IDX file"),
        (_GOOD, "is no gzip file, or damaged"),
        (_gz(_GOOD)[:20] + b"\xff\xff\xff" + _gz(_GOOD)[23:], "no gzip file, or damaged"),
        (_gz(_GOOD[:-1]), "holds 47039 bytes of data, its header says 47040"),
        (_gz(_GOOD + b"x"), "holds 47041 bytes of data, its header says 47040"),
        (_gz(b"\0\0\x08\x01" + _GOOD[4:]), "is no IDX file of 3-dimensional bytes (magic 00000801)"),
        (_gz(b"\0\0\x0d\x03" + _GOOD[4:]), "(magic 00000d03)"),
        (_gz(_GOOD[:9]), "is no IDX file"),
        (_gz(b"\0\0\x08\x03" + b"\xff" * 12), "its header says 7922"),
    ],
)
def test_damaged_files(tmp_path, idx_folder, fails, data, phrase):
    path = idx_folder(tmp_path / "mnist") / FILES[0]
    path.write_bytes(data)
    text = fails(DataError, phrase, load_idx, MNIST, tmp_path, Silent())
    assert str(path) in text
    assert "delete it" in text


@pytest.mark.parametrize(
    ("replaced", "phrase"),
    [
        ((FILES[1], np.arange(59) % 10), "x_train has 60 examples and y_train 59 labels"),
        ((FILES[1], np.arange(60) % 11), "y_train: label 10 is outside 0..9"),
        ((FILES[3], np.arange(20) + 10), "y_test: label 29 is outside 0..9"),
        ((FILES[1], np.zeros(60)), "y_train holds one class only"),
        ((FILES[2], np.zeros((20, 27, 28))), "of x_test (27, 28)"),
        ((FILES[0], np.zeros((0, 28, 28))), "x_train is empty"),
    ],
)
def test_files_that_do_not_fit(tmp_path, idx_folder, fails, replaced, phrase):
    file, array = replaced
    (idx_folder(tmp_path / "mnist") / file).write_bytes(_gz(idx_bytes(array.astype(np.uint8))))
    assert "mnist" in fails(DataError, phrase, load_idx, MNIST, tmp_path, Silent())


@pytest.mark.shared
def test_the_published_files(shared_data):
    raw = load_idx(MNIST, shared_data, Silent())
    assert raw.x_train.shape == (60_000, 1, 28, 28)
    assert list(raw.y_train[:5]) == [5, 0, 4, 1, 9]
    assert list(raw.y_test[:5]) == [7, 2, 1, 0, 4]


@pytest.mark.shared
def test_fashion_is_not_taken_for_mnist(shared_data, fails):
    path = shared_data / "fashion_mnist" / FILES[3]
    fails(DataError, "is a file of fashion-mnist, not of mnist", read_idx, path, 1, MNIST)
    assert len(read_idx(path, 1, FASHION_MNIST)) == 10_000

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.progress import Silent
from edgeprune.data.arrays import call_function, from_arrays, read_npz


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ((7,), (7,)),
        ((5, 6), (1, 5, 6)),
        ((5, 6, 1), (1, 5, 6)),
        ((5, 6, 3), (3, 5, 6)),
        ((3, 5, 6), (3, 5, 6)),
        ((1, 5, 6), (1, 5, 6)),
        ((2, 5, 6), (2, 5, 6)),
        ((3, 8, 3), (3, 8, 3)),
    ],
)
def test_layouts(arrays, given, becomes):
    for part, count in (("x_train", 40), ("x_test", 8)):
        arrays[part] = np.arange(count * np.prod(given), dtype=np.uint8).reshape(count, *given)
    raw = from_arrays(arrays, "here")
    assert raw.x_train.shape == (40, *becomes)
    assert raw.x_test.shape == (8, *becomes)
    assert raw.classes == ("0", "1", "2", "3")
    assert raw.y_train.dtype == np.int64


def test_channels_last_keeps_the_pixels(arrays):
    arrays["x_train"] = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), np.uint8)
    arrays["x_test"] = arrays["x_train"][:8]
    raw = from_arrays(arrays, "here")
    assert raw.x_train[11, 2, 4, 1] == arrays["x_train"][11, 4, 1, 2]
    assert raw.x_train.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint16, ">f4", bool])
def test_other_numbers_become_float32(arrays, dtype):
    arrays["x_train"], arrays["x_test"] = arrays["x_train"].astype(dtype), arrays["x_test"].astype(dtype)
    raw = from_arrays(arrays, "here")
    assert raw.x_train.dtype == np.float32
    assert np.array_equal(raw.x_train[:, 0], arrays["x_train"].astype(np.float32))


def _with(value, at=(0, 0, 0)):
    def change(array):
        array = array.astype(np.float64)
        array[at] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "phrase"),
    [
        ("x_train", _with(np.nan), "here: x_train holds NaN"),
        ("x_test", _with(-np.inf), "here: x_test holds infinite values"),
        ("x_train", _with(1e300), "here: x_train holds values too large for float32"),
        ("x_train", lambda x: x[:0], "here: x_train is empty"),
        ("x_test", lambda x: x[:, :0], "here: x_test is empty"),
        ("x_train", lambda x: x[:30], "x_train has 30 examples and y_train 40 labels"),
        ("x_test", lambda x: x[:, :4], "examples of x_train are (5, 6), of x_test (4, 6)"),
        ("x_test", lambda x: x / 255, "x_train is uint8, x_test float32"),
        ("x_train", lambda x: x.ravel(), "here: x_train has shape (1200,)"),
        ("x_train", lambda x: x[:, None, None, None], "here: x_train has shape (40, 1, 1, 1, 5, 6)"),
        ("x_train", lambda x: x.astype(str), "not numbers"),
        ("x_train", lambda x: x.astype(complex), "holds complex128, not numbers"),
        ("x_train", lambda _: [[1, 2], [3]], "here: x_train cannot become an array"),
        ("y_train", lambda y: y[:0], "here: y_train is empty"),
        ("y_train", lambda y: y.astype(float), "here: y_train is float64, y_test int64"),
        ("y_test", lambda y: y > 0, "here: y_train is int64, y_test bool"),
        ("y_train", lambda y: np.eye(4, dtype=int)[y], "here: y_train has shape (40, 4)"),
        ("y_train", lambda y: y + 1, "here: y_train has no example of class 0"),
        ("y_train", lambda y: y * 10**9, "here: y_train has no example of class 1"),
        ("y_train", lambda y: y - 1, "here: y_train: label -1 is outside 0..3"),
        ("y_train", lambda y: y * 0, "here: y_train holds one class only"),
        ("y_test", lambda y: y + 1, "here: y_test: label 4 is outside 0..3, the classes of y_train"),
        ("y_test", lambda y: y - 1, "here: y_test: label -1 is outside 0..3"),
    ],
)
def test_unusable_arrays(arrays, fails, name, change, phrase):
    arrays[name] = change(arrays[name])
    if phrase.startswith("here: y_train holds one class"):
        arrays["y_test"] = arrays["y_test"] * 0
    fails(DataError, phrase, from_arrays, arrays, "here")


def test_labels_may_be_a_column(arrays):
    arrays["y_train"] = arrays["y_train"][:, None].astype(np.uint8)
    assert from_arrays(arrays, "here").y_train.shape == (40,)


def test_npz(tmp_path, arrays):
    np.savez_compressed(tmp_path / "own.npz", **arrays, more=np.zeros(3))
    raw = read_npz(tmp_path / "own.npz")
    assert np.array_equal(raw.x_train[:, 0], arrays["x_train"])


def test_npz_without_an_array(tmp_path, arrays, fails):
    del arrays["y_test"]
    np.savez(tmp_path / "own.npz", **arrays)
    text = fails(DataError, "own.npz has no y_test", read_npz, tmp_path / "own.npz")
    assert "holds x_test, x_train, y_train" in text


def test_npz_with_objects_is_not_unpickled(tmp_path, arrays, fails):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (type(ran).touch, (ran,))

    arrays["y_train"] = np.array([Evil()] * 40, dtype=object)
    np.savez(tmp_path / "own.npz", **arrays)
    fails(DataError, "it holds Python objects", read_npz, tmp_path / "own.npz")
    assert not ran.exists()


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_truncated_npz(tmp_path, arrays, fails, keep):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:keep])
    fails(DataError, "own.npz is truncated or no .npz file", read_npz, path)


def test_damaged_npz(tmp_path, arrays, fails):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    data = bytearray(path.read_bytes())
    data[500] ^= 0xFF
    path.write_bytes(data)
    fails(DataError, "own.npz: it is damaged", read_npz, path)


def test_npz_with_a_header_of_nonsense(tmp_path, fails):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00\x10\x00{'nonsense': 1, ")
    fails(DataError, "own.npz: it is damaged", read_npz, path)


def test_npy_under_the_name_of_npz(tmp_path, arrays, fails):
    with (tmp_path / "own.npz").open("wb") as stream:
        np.save(stream, arrays["x_train"])
    fails(DataError, "own.npz is truncated or no .npz file", read_npz, tmp_path / "own.npz")


_FUNCTION = """
import numpy as np
x = np.arange(80, dtype=np.float32).reshape(20, 4)
y = np.arange(20) % 2
def as_dict(): return {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
def as_tuple(): return x, y, x[:4], y[:4]
def three(): return x, y, x
def nothing(): pass
def half(): return {"x_train": x, "y_train": y}
def broken(): return x, y[:3], x, y
def raises(): raise RuntimeError("no such\\nserver")
"""


@pytest.mark.parametrize(("function", "tests"), [("as_dict", 20), ("as_tuple", 4)])
def test_function(tmp_path, function, tests):
    (tmp_path / "own.py").write_text(_FUNCTION)
    raw = call_function(f"{tmp_path}/own.py:{function}", Silent())
    assert raw.x_train.shape == (20, 4)
    assert len(raw.y_test) == tests


@pytest.mark.parametrize(
    ("function", "kind", "phrase"),
    [
        ("three", DataError, "own.py:three returned 3 values"),
        ("nothing", DataError, "own.py:nothing returned a NoneType"),
        ("half", DataError, "own.py:half has no x_test"),
        ("broken", DataError, "own.py:broken: x_train has 20 examples and y_train 3 labels"),
        ("raises", UsageError, "own.py:raises fails at own.py line 11: RuntimeError: no such"),
        ("as_dct", UsageError, "did you mean 'as_dict'?"),
    ],
)
def test_function_of_no_use(tmp_path, fails, function, kind, phrase):
    (tmp_path / "own.py").write_text(_FUNCTION)
    fails(kind, phrase, call_function, f"{tmp_path}/own.py:{function}", Silent())


def test_arrays_that_do_not_fit_into_memory_are_refused_before_they_are_unpacked(tmp_path, fails, monkeypatch):
    x = np.zeros((40, 1000), np.float32)
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=np.arange(40) % 2, x_test=x, y_test=np.arange(40) % 2)
    read_npz(tmp_path / "a.npz")
    monkeypatch.setattr("edgeprune.data.room.free_bytes", lambda: 900_000)
    said = fails(DataError, "321 kB unpacked, and about 3 times as much while loading", read_npz, tmp_path / "a.npz")
    assert "do not fit into the 900 kB of memory that are free" in said


def test_free_memory_is_within_the_limits_of_the_process():
    import resource

    from edgeprune.data.room import free_bytes

    assert 0 < free_bytes() < 1 << 50
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, hard))
    try:
        assert free_bytes() <= 1 << 40
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.core.errors import DataError, UsageError
from edgeprune.core.progress import Silent
from edgeprune.data import images
from edgeprune.data.catalog import DATASETS, data_folder, load_data


def load(source, data_dir=None, seed=0, **options):
    return load_data(str(source), data_dir, seed=seed, progress=Silent(), **options)


def test_digits_need_no_file():
    one, other = load("digits", seed=1), load("digits", seed=2)
    assert one.input_shape == (1, 8, 8)
    assert (len(one.train), len(one.validation), len(one.test)) == (1295, 143, 359)
    assert one.preprocessing.scale == 1 / 16
    assert 0.2 < one.preprocessing.mean[0] < 0.4
    assert np.array_equal(one.test.x, other.test.x)
    assert not np.array_equal(one.train.x, other.train.x)
    assert np.bincount(one.test.y).min() > 30


def test_where_data_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path / "named"))
    assert data_folder(tmp_path / "given") == tmp_path / "given"
    assert data_folder(None) == tmp_path / "named"
    monkeypatch.delenv("EDGEPRUNE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder(None) == tmp_path / "cache/edgeprune/data"


def test_mnist_from_the_environment(tmp_path, monkeypatch, idx_folder):
    idx_folder(tmp_path / "mnist")
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    data = load("mnist", validation_share=0.5)
    assert (data.name, len(data.train), len(data.validation), len(data.test)) == ("mnist", 30, 30, 20)


def test_npz_and_function(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    path = str(tmp_path / "own.npz")
    (tmp_path / "mine.py").write_text(f"import numpy\ndef get(): return dict(numpy.load({path!r}))\n")
    by_file, by_function = load(tmp_path / "own.npz"), load(f"{tmp_path}/mine.py:get")
    assert (by_file.name, by_function.name) == ("own", "mine.get")
    assert by_file.fingerprint == by_function.fingerprint


@pytest.mark.parametrize(
    ("source", "phrase"),
    [
        ("minst", "unknown data set 'minst'; did you mean 'mnist'?"),
        ("fashion_mnist", "did you mean 'fashion-mnist'?"),
        ("cifar-10", "did you mean 'cifar10'?"),
        ("zzz", "choose one of: cifar10, digits, fashion-mnist, mnist (or an image folder"),
        ("", "unknown data set ''"),
        ("no/where", "data set no/where does not exist"),
        ("nowhere.npz", "data set nowhere.npz does not exist"),
        ("~/nowhere", "data set ~/nowhere does not exist"),
    ],
)
def test_unknown_sources(tmp_path, monkeypatch, fails, source, phrase):
    monkeypatch.chdir(tmp_path)
    fails(DataError, phrase, load, source)


def test_other_kinds_of_file(tmp_path, fails):
    (tmp_path / "data.csv").write_text("1,2\n")
    fails(DataError, "data.csv is neither .zip nor .npz", load, tmp_path / "data.csv")
    fails(UsageError, "names no function", load, tmp_path / "mine.py")


def test_a_folder_by_its_path(tmp_path, monkeypatch, fails):
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    fails(DataError, "mnist holds no images", load, "./mnist")


def test_the_table_says_what_everything_is():
    assert set(DATASETS) == {"mnist", "fashion-mnist", "cifar10", "digits"}
    assert all(known.about for known in DATASETS.values())


def test_cifar10_offline_says_what_to_put_where(tmp_path, monkeypatch, fails):
    monkeypatch.setattr("edgeprune.data.cifar.MIRRORS", ("http://127.0.0.1:1",))
    text = fails(DataError, "cannot download cifar-10-python.tar.gz", load, "cifar10", tmp_path)
    assert f"put cifar-10-python.tar.gz into {tmp_path / 'cifar10'}" in text


@pytest.mark.shared
def test_published_mnist(shared_data):
    data = load("mnist", shared_data)
    assert (len(data.train) + len(data.validation), len(data.test)) == (60_000, 10_000)
    assert data.preprocessing.mean[0] == pytest.approx(0.1307, abs=5e-4)
    assert data.preprocessing.std[0] == pytest.approx(0.3081, abs=5e-4)


@pytest.mark.shared
def test_a_large_zip_of_jpegs(shared_data, monkeypatch):
    path = shared_data / "cifar10-jpeg.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    # Decoding all 60,000 takes eight seconds: every fiftieth stands for them.
    every = images._list
    monkeypatch.setattr("edgeprune.data.images._list", lambda *args: every(*args)[::50])
    data = load(path)
    assert data.name == "cifar10-jpeg"
    assert data.input_shape == (3, 32, 32)
    assert data.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert np.bincount(data.test.y).tolist() == [20] * 10

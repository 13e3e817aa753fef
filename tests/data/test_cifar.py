from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Silent
from edgeprune.data.cifar import BATCHES, FOLDER, TARBALL, load_cifar10, read_batch


def python2_pickle(pixels: bytes, labels: list[int]) -> bytes:
    """A batch as Python 2 and its numpy wrote the published files, opcode by opcode."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01" + b"M" + struct.pack("<H", len(labels)) + b"M" + struct.pack("<H", 3072) + b"\x86",
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb",
        ]
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = text(b"batch_label") + text(b"a batch") + text(b"labels") + numbers + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def batch(seed: int, count: int = 20, first_label: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)
    return python2_pickle(pixels.tobytes(), [(first_label + index) % 10 for index in range(count)])


def write_folder(base: Path) -> Path:
    (base / FOLDER).mkdir(parents=True)
    for seed, name in enumerate(BATCHES):
        (base / FOLDER / name).write_bytes(batch(seed))
    return base / FOLDER


def write_tarball(base: Path, leave_out: str = "") -> Path:
    base.mkdir(exist_ok=True)
    with tarfile.open(base / TARBALL, "w:gz") as archive:
        for seed, name in enumerate(BATCHES):
            if name != leave_out:
                data = batch(seed)
                member = tarfile.TarInfo(f"{FOLDER}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return base / TARBALL


@pytest.mark.parametrize("write", [write_folder, write_tarball])
@pytest.mark.parametrize("where", [".", "cifar10"])
def test_folder_and_tarball(tmp_path, write, where):
    write(tmp_path / where)
    raw = load_cifar10(tmp_path, Silent())
    assert raw.x_train.shape == (100, 3, 32, 32)
    assert raw.x_test.shape == (20, 3, 32, 32)
    assert raw.classes[0] == "airplane"
    expected = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)
    assert np.array_equal(raw.x_train[:20].reshape(20, -1), expected)
    assert list(raw.y_train[:3]) == [0, 1, 2]


def test_a_batch_written_by_todays_numpy(arrays):
    data = pickle.dumps({b"data": np.ones((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=3)
    images, labels = read_batch(data, "it")
    assert images.shape == (2, 3, 32, 32)
    assert list(labels) == [1, 2]


def test_nothing_a_file_names_is_run(tmp_path, fails):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (type(ran).touch, (ran,))

    for protocol in (0, 2, 4):
        data = pickle.dumps({b"data": Evil(), b"labels": [1]}, protocol=protocol)
        assert "which a CIFAR-10 file never does" in fails(DataError, "it asks for ", read_batch, data, "it")
    assert not ran.exists()


@pytest.mark.parametrize("module", [b"os\nsystem", b"builtins\neval", b"numpy\nload", b"copyreg\n_reconstructor"])
def test_other_globals_are_refused(fails, module):
    name = module.decode().replace("\n", ".")
    fails(DataError, f"it asks for {name}", read_batch, b"c" + module + b"\n(S'x'\ntR.", "it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        batch(0)[:-10],
        batch(0)[:200],
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({"data": 1}, protocol=2),
        pickle.dumps({b"data": np.ones((2, 3072)), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": np.ones((2, 100), np.uint8), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": np.ones((2, 3072), np.uint8), b"labels": None}, protocol=3),
    ],
)
def test_damaged_batches(fails, data):
    fails(DataError, "it is truncated or no CIFAR-10 batch", read_batch, data, "it")


def test_a_label_out_of_range(tmp_path, fails):
    folder = write_folder(tmp_path)
    (folder / "data_batch_3").write_bytes(python2_pickle(bytes(3072), [10]))
    fails(DataError, "y_train: label 10 is outside 0..9", load_cifar10, tmp_path, Silent())


def test_labels_missing(tmp_path, fails):
    folder = write_folder(tmp_path)
    (folder / "data_batch_3").write_bytes(python2_pickle(bytes(3072 * 2), [1]))
    fails(DataError, "x_train has 82 examples and y_train 81 labels", load_cifar10, tmp_path, Silent())


def test_batches_missing(tmp_path, fails):
    write_tarball(tmp_path, leave_out="data_batch_4")
    fails(DataError, f"{TARBALL} has no data_batch_4", load_cifar10, tmp_path, Silent())
    (write_folder(tmp_path) / "test_batch").unlink()
    fails(DataError, f"{FOLDER} has no test_batch", load_cifar10, tmp_path, Silent())


@pytest.mark.parametrize("keep", [0, 30, 5000, -300])
def test_truncated_tarball(tmp_path, fails, keep):
    path = write_tarball(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    fails(DataError, f"{TARBALL} is truncated", load_cifar10, tmp_path, Silent())


def test_one_wrong_byte_in_the_tarball(tmp_path, fails):
    path = write_tarball(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    fails(DataError, f"{TARBALL} is truncated, damaged", load_cifar10, tmp_path, Silent())

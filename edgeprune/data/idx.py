"""MNIST and Fashion-MNIST: four gzipped IDX files."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Progress
from edgeprune.data.arrays import NAMES, Raw, from_arrays
from edgeprune.data.download import Remote, fetch

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
#: Bytes of a file, unzipped: the largest that is known here has 47 million.
MAX_BYTES = 1 << 28
_AGAIN = "delete it to have it downloaded again, or replace it by the published file"


@dataclass(frozen=True, slots=True)
class IdxSet:
    """One data set in four IDX files: where they may lie below the data folder, and what they are checked with."""

    name: str
    #: Sub-folders to look in; the first is where a download goes.
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    #: MD5 of the unzipped bytes, in the order of FILES: gzip headers differ between honest copies.
    md5s: tuple[str, str, str, str]
    classes: tuple[str, ...]


MNIST = IdxSet(
    "mnist",
    ("mnist", "MNIST/raw", "."),
    ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
    (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    tuple("0123456789"),
)
FASHION_MNIST = IdxSet(
    "fashion-mnist",
    ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "."),
    (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_idx(known: IdxSet, base: Path, progress: Progress) -> Raw:
    """The set's arrays (N, 1, H, W) uint8, from files below `base`; missing ones are downloaded.

    Raises DataError for a file that is missing and cannot be fetched, damaged, or another set's.
    """
    candidates = [base / name for name in known.folders]
    folder = next((path for path in candidates if any((path / file).is_file() for file in FILES)), candidates[0])
    hint = f"put {', '.join(FILES)} into {folder}, or point --data-dir or EDGEPRUNE_DATA at the folder that has them"
    arrays: dict[str, NDArray[np.uint8]] = {}
    for key, file, md5 in zip(NAMES, FILES, known.md5s, strict=True):
        path = folder / file
        if not path.is_file():
            remote = Remote(file, known.mirrors, md5, content=partial(_unzip, path))
            fetch(remote, folder, progress, hint=hint)
        arrays[key] = read_idx(path, 3 if key.startswith("x") else 1, known)
    return from_arrays(arrays, f"{known.name} in {folder}", classes=known.classes)


def read_idx(path: Path, dimensions: int, known: IdxSet | None = None) -> NDArray[np.uint8]:
    """One gzipped IDX file of bytes: (N, H, W) for 3 dimensions, (N,) for 1.

    Raises DataError when it is damaged, or when it is the published file of another set than `known`.
    """
    try:
        data = _unzip(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the file's permissions") from error
    for other in (MNIST, FASHION_MNIST):
        if known and other is not known and hashlib.md5(data, usedforsecurity=False).hexdigest() in other.md5s:
            raise DataError(f"{path} is a file of {other.name}, not of {known.name}", f"move it to {other.folders[0]}/")
    header = 4 + 4 * dimensions
    # Magic number: two zero bytes, element type 8 (unsigned byte), number of dimensions.
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(
            f"{path} is no IDX file of {dimensions}-dimensional bytes (magic {data[:4].hex() or 'missing'})", _AGAIN
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    expected = int(np.prod(shape, dtype=object))
    if len(data) - header != expected:
        raise DataError(f"{path} holds {len(data) - header} bytes of data, its header says {expected}", _AGAIN)
    # A copy, since torch wants arrays it may write to.
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def _unzip(path: Path, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unzipped = stream.read(MAX_BYTES + 1)
            if len(unzipped) > MAX_BYTES:
                raise DataError(f"{path}: expected at most {MAX_BYTES:,} bytes unzipped, got more", _AGAIN)
            return unzipped
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error) as error:
        wrong = "truncated" if isinstance(error, EOFError) else "no gzip file, or damaged"
        raise DataError(f"{path} is {wrong}", _AGAIN) from error

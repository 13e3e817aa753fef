"""CIFAR-10 in its Python form: pickles, read by an unpickler that knows arrays of bytes and nothing else."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Progress
from edgeprune.core.reading import Source
from edgeprune.data.arrays import Raw, from_arrays
from edgeprune.data.download import Remote, fetch

TARBALL = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MIRRORS = ("https://www.cs.toronto.edu/~kriz",)
MD5 = "c58f30108f718f92721af3b95e74349a"
#: What unpickling a damaged file, or taking the result for a batch, raises.
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, AttributeError, KeyError, IndexError),
    *(ValueError, TypeError, OverflowError, MemoryError),
)
#: Bytes of a batch, and of what lies behind the last one in the tarball; a batch has 31 million.
_MAX_BATCH_BYTES, _MAX_BYTES = 1 << 26, 1 << 28
_PIXELS = 3 * 32 * 32
_AGAIN = "delete it to have it downloaded again, or replace it by the published file"


def load_cifar10(base: Path, progress: Progress) -> Raw:
    """Arrays (N, 3, 32, 32) uint8 from the tarball or the extracted folder below `base`, downloaded when missing.

    Raises DataError for a file that is missing and cannot be fetched, or damaged. Nothing is extracted.
    """
    places = [base, base / "cifar10"]
    if extracted := next((place / FOLDER for place in places if (place / FOLDER).is_dir()), None):
        return _assemble(extracted, lambda name: _read_file(extracted / name), progress)
    tarball = next((place / TARBALL for place in places if (place / TARBALL).is_file()), None)
    if tarball is None:
        hint = f"put {TARBALL} into {places[1]}, or point --data-dir or EDGEPRUNE_DATA at the folder that has it"
        tarball = fetch(Remote(TARBALL, MIRRORS, MD5), places[1], progress, hint=hint)
    try:
        with gzip.open(tarball) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            # One pass: going back in a gzip stream starts it anew. Members are told by their last name.
            wanted = (member for member in archive if member.isfile() and Path(member.name).name in BATCHES)
            members = {Path(member.name).name: _extract(archive, member) for member in wanted}
            # The tar ends before the gzip stream does, whose checksum is compared at its very end.
            for _ in range(_MAX_BYTES >> 20):
                if not stream.read(1 << 20):
                    break
            else:
                raise DataError(f"{tarball}: expected at most {_MAX_BYTES:,} bytes unzipped, got more", _AGAIN)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{tarball} is truncated, damaged or no gzipped tar file", _AGAIN) from error
    return _assemble(tarball, members.get, progress)


def _assemble(origin: Path, read: Callable[[str], bytes | None], progress: Progress) -> Raw:
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    with progress.bar("read cifar10", len(BATCHES)) as bar:
        for name in BATCHES:
            data = read(name)
            if data is None:
                raise DataError(f"{origin} has no {name}", _AGAIN)
            parts.append(read_batch(data, f"{origin}: {name}"))
            bar.advance()
    x, y = zip(*parts, strict=True)
    arrays = {"x_train": np.concatenate(x[:-1]), "y_train": np.concatenate(y[:-1]), "x_test": x[-1], "y_test": y[-1]}
    return from_arrays(arrays, str(origin), classes=CLASSES)


def read_batch(data: bytes, what: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One pickled batch: images (N, 3, 32, 32) and labels (N,). Raises DataError; runs nothing the file names."""
    try:
        batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        raw, labels = batch[b"data"].raw, batch[b"labels"]
        images = np.frombuffer(raw, np.uint8).reshape(-1, 3, 32, 32)
        return images.copy(), np.array(labels, np.int64)
    except _NotAllowed as error:
        raise DataError(
            f"{what} asks for {error}, which a CIFAR-10 file never does", "do not trust it; " + _AGAIN
        ) from error
    except _BROKEN as error:
        raise DataError(f"{what} is truncated or no CIFAR-10 batch", _AGAIN) from error


class _NotAllowed(pickle.UnpicklingError):
    pass


class _Array:
    """Stands in for a numpy array: keeps its bytes, so that nothing of numpy runs on what a file says."""

    raw = b""

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _Bytes) or fortran or not isinstance(raw, bytes) or shape[1:] != (_PIXELS,):
            raise pickle.UnpicklingError(f"not an array (N, {_PIXELS}) of bytes")
        self.raw = raw


class _Bytes:
    """Stands in for numpy's dtype of unsigned bytes, the only one there is."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"array of {code!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like mean nothing for single bytes."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


class _ArraysOnly(pickle.Unpickler):
    _KNOWN: ClassVar[dict[tuple[str, str], object]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        # Only ever an argument of _reconstruct, which does not look at it.
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): _Bytes,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self._KNOWN[module_name, global_name]
        except KeyError:
            raise _NotAllowed(f"{module_name}.{global_name}") from None


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_BATCH_BYTES:
        raise DataError(f"{member.name}: expected at most {_MAX_BATCH_BYTES:,} bytes, got {member.size:,}", _AGAIN)
    stream = archive.extractfile(member)
    return stream.read() if stream else b""


def _read_file(path: Path) -> bytes | None:
    try:
        return Source(path, DataError, _AGAIN).read_bytes(_MAX_BATCH_BYTES) if path.is_file() else None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the file's permissions") from error

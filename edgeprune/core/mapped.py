"""Arrays that lie on disk, mapped into memory, and are handled part by part: memory never holds all of one.

An array in memory is one part, and is handled at once.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from edgeprune.core.files import storing

#: Bytes of a part.
_PART = 8 << 20


def on_disk(x: NDArray[Any]) -> bool:
    """Whether it is a mapped file, or a view of one."""
    base: Any = x
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return isinstance(base, mmap.mmap)


def parts(x: NDArray[Any]) -> Iterator[slice]:
    """Slices of the first axis that together are `x`: one of an array in memory, of one on disk as many as it takes."""
    return _slices(len(x), (x,))


def built(count: int, rows: Callable[[slice], NDArray[Any]], *of: NDArray[Any]) -> NDArray[Any]:
    """An array (count, ...) of what `rows` makes of slices of it; on disk, part by part, where one `of` its sources is.

    Raises StorageError where the disk is full.
    """
    if not any(map(on_disk, of)):
        return rows(slice(0, count))
    found: NDArray[Any] | None = None
    for part in _slices(count, of):
        made = rows(part)
        if found is None:
            with new_file() as stream:
                # Room first: what a mapping cannot write kills the process.
                with _keeping():
                    os.posix_fallocate(stream.fileno(), 0, count * made[:1].nbytes)
                found = mapped(stream, made.dtype, (count, *made.shape[1:]))
        found[part] = made
    assert found is not None
    return found


def changed(x: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """`change(x)`, where `change` treats every row alike; on disk where `x` is. Raises StorageError."""
    return built(len(x), lambda part: change(x[part]), x)


def mapped(stream: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array (N, ...) whose bytes were written to `stream`, which may be closed then. Raises StorageError."""
    with _keeping():
        stream.flush()
    return np.asarray(np.memmap(stream, dtype, "r+", shape=shape))


def new_file() -> IO[bytes]:
    """A file without a name, which goes when nobody uses it any more: also when this process is killed.

    It lies in the folder of caches, not in the one for temporary files: that is often memory. Raises StorageError.
    """
    with _keeping():
        _folder().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=_folder())


def write(stream: IO[bytes], data: NDArray[Any]) -> None:
    """Append the bytes of an array. Raises StorageError where the disk is full."""
    with _keeping():
        stream.write(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)


def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("edgeprune"))


def _keeping() -> AbstractContextManager[None]:
    return storing(_folder(), elsewhere="set XDG_CACHE_HOME to a folder on a larger disk")


def _slices(count: int, of: Iterable[NDArray[Any]]) -> Iterator[slice]:
    of = tuple(of)
    row = sum(each[:1].nbytes for each in of)
    step = max(1, _PART // max(1, row)) if any(map(on_disk, of)) else max(1, count)
    for start in range(0, max(1, count), step):
        yield slice(start, min(start + step, count))

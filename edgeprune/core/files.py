"""Files: hashes, atomic writes, and one clear error when this machine cannot keep them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeprune.core.errors import StorageError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_ELSEWHERE = "choose another --runs-dir (of a bench or of Shapley values: --out)"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def storing(where: Path, *, denied: bool = True, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turn "disk full" and, with `denied`, "not writable" under `where` into a `StorageError`; other errors pass.

    `elsewhere` says how to have it written to another place.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(f"no space left to write {where}", f"free some disk space, or {elsewhere}") from error
        if denied and error.errno in _DENIED:
            raise StorageError(f"cannot write {where}: {error.strerror}", elsewhere) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write whole or not at all: under a temporary name, then renamed. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # as `is_temporary` knows it
    with storing(path):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether `write_bytes` writes under such a name; a process that was killed leaves it behind."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None


def sweep_temporary(folder: Path) -> list[str]:
    """Remove what `write_bytes` left unfinished in a folder and below, all of whose writers are gone; the names."""
    left = [each for each in folder.rglob(".*.tmp") if is_temporary(each)]
    with storing(folder):
        for each in left:
            each.unlink(missing_ok=True)
    return sorted(each.name for each in left)


@contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, to be filled and renamed to it, so that `out` is whole or not at all.

    What is left under its own name at the end is removed. Raises UsageError where `out` is there, StorageError.
    """
    if out.exists():
        raise UsageError(f"{out} is there already", "name another --out, or remove it")
    with storing(out.parent, elsewhere="name another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        work = out.with_name(f".{out.name}.folder.{os.getpid()}.tmp")  # as `is_temporary` knows it
        work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, whole or not at all. Raises StorageError."""
    write_bytes(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())

"""Fetch a published file once, checked against its MD5, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgeprune.core.errors import DataError, StorageError
from edgeprune.core.progress import Progress

#: Seconds to wait for a connection, or for the next bytes, before the mirror counts as unreachable.
TIMEOUT_S = 10.0
_CHUNK = 1 << 18
#: Seconds after which a half written file has no writer any more.
_LEFT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file: its name, the folders (URLs) that have it, and the MD5 of its content."""

    name: str
    mirrors: tuple[str, ...]
    md5: str
    #: What the MD5 is of, given the downloaded bytes: they themselves, or what they unzip to.
    content: Callable[[bytes], bytes] = bytes


def fetch(remote: Remote, folder: Path, progress: Progress, *, hint: str, timeout_s: float = TIMEOUT_S) -> Path:
    """Download `remote` into `folder` and return its path there; mirrors are tried in order.

    Raises DataError with `hint` (which file to put where) when no mirror gave the right bytes, StorageError when they
    cannot be kept.
    """
    reasons: list[str] = []
    for mirror in remote.mirrors:
        host = urlsplit(mirror).hostname or mirror
        try:
            data = _read(f"{mirror.rstrip('/')}/{remote.name}", remote.name, timeout_s, progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # URLError wraps the reason; TimeoutError and HTTPError speak for themselves.
            reason = getattr(error, "reason", None) or error
            reasons.append(f"{host}: {getattr(reason, 'strerror', None) or reason or type(error).__name__}")
            continue
        if _md5(remote, data) != remote.md5:
            reasons.append(f"{host}: the file is not the published one (wrong checksum)")
            continue
        return _keep(data, folder / remote.name)
    raise DataError(f"cannot download {remote.name} ({', '.join(reasons)})", hint)


def _read(url: str, name: str, timeout_s: float, progress: Progress) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "edgeprune"})
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        length = response.headers.get("Content-Length")
        data = bytearray()
        with progress.bar(f"download {name}", float(length) if length else None) as bar:
            while chunk := response.read(_CHUNK):
                data += chunk
                bar.advance(len(chunk))
    return bytes(data)


def _md5(remote: Remote, data: bytes) -> str:
    try:
        return hashlib.md5(remote.content(data), usedforsecurity=False).hexdigest()
    except DataError:
        return "unreadable"


def _keep(data: bytes, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            # Writing takes seconds: what is as old was left by a process that was killed, of whichever machine.
            if time.time() - left.stat().st_mtime > _LEFT_S:
                left.unlink(missing_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", "choose another --data-dir, or free some space"
        ) from error
    return path

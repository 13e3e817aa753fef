"""Runs ON the board, as long as a session does: keeps the session's folder and ends the probes it leaves behind.

Standard library only, Python 3.9+, Linux; it imports nothing of edgeprune. `devices.ssh_link` starts it through
`python -c`, with the session's mark as last argument. After one line with the mark it takes requests like the probe's:
one JSON object per line, `{"op": ..., "n": ...}`, answered by `{"ok": true, ...}` or `{"ok": false, "kind": ...,
"error": "one line"}`. At the end of stdin, or after `patience_s` without a byte, it kills the probes and ends: a cut
link leaves nothing that burns the board's processor. Bytes and seconds throughout.

    open    {folder, who, attempt, cache_bytes, patience_s} -> folder, models, scratch, facts of the machine
    have    {name, size}         -> there: bool, size: bytes of it that came before the link was cut
    put     {name, offset, data: base64} -> size: bytes that are there now
    keep    {name}               -> (nothing), or kind "garbled" where the content is not what the name says
    stat    {path}               -> size, sha256, or kind "missing"
    get     {path, offset, size} -> data: base64
    remove  {path}               -> (nothing)
    clean   {}                   -> bytes: what the models took that this session did not use
    kill    {mark}               -> (nothing): the probe with this argument is gone
    sh      {script, words, limit_s} -> code, text: a shell script with its words, at most so many seconds of it
    beat    {}                   -> (nothing)
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

_MODEL = re.compile(r"[0-9a-f]{64}(\.\w{1,16})?", re.ASCII)
_PART = re.compile(r"\.[0-9a-f]{64}(\.\w{1,16})?\.part", re.ASCII)
#: First letters of the argument that marks every probe.
_PROBE = b"edgeprune-probe-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLOCK = 1 << 20


class RefusedError(Exception):
    """A request that cannot be served; `kind` goes into the answer."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _words(pid: int) -> list[bytes]:
    """The command line of a process; empty where it is gone or another user's."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().split(b"\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


class Keeper:
    """The folder of one session, locked while the keeper lives."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock: int | None = None
        self._used: set[str] = set()
        self._models = self._scratch = ""
        self._limit = 0
        self.patience_s = 60.0

    # ------------------------------------------------------------------------------------------------ the session

    def _open(self, folder: str, who: str, attempt: int, cache_bytes: int, patience_s: float) -> dict[str, Any]:
        if sys.version_info < (3, 9):  # noqa: UP036 - it is the board's Python
            raise RefusedError("refused", f"Python {platform.python_version()} is too old: 3.9 or newer is needed")
        folder = os.path.abspath(os.path.expanduser(folder))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder).st_uid != os.geteuid():
            raise RefusedError("refused", f"the folder {folder} belongs to another user")
        self.patience_s = patience_s
        lock, self._models, self._scratch = (os.path.join(folder, name) for name in ("lock", "models", "scratch"))
        if not os.path.exists(lock) and (os.path.lexists(self._models) or os.path.lexists(self._scratch)):
            raise RefusedError(
                "refused", f"{folder} holds a models or scratch folder that is not ours: give another --folder"
            )
        self._take(lock, attempt, who)
        self._kill_probes()
        shutil.rmtree(self._scratch, ignore_errors=True)
        for each in (self._models, self._scratch):
            os.makedirs(each, mode=0o700, exist_ok=True)
        if attempt == 0:  # later ones go on with what came before the link was cut
            for name in filter(_PART.fullmatch, os.listdir(self._models)):
                _remove(os.path.join(self._models, name))
        self._limit = cache_bytes
        self._evict(self._limit)
        disk = os.statvfs(folder)
        return {
            "folder": folder,
            "models": self._models,
            "scratch": self._scratch,
            "python": platform.python_version(),
            # On a 64-bit kernel this Python, and so what can be installed, may be a 32-bit one.
            "machine": "armv7l" if (platform.machine(), sys.maxsize) == ("aarch64", 2**31 - 1) else platform.machine(),
            "system": platform.system(),
            "release": platform.release(),
            "boot_id": _first_line("/proc/sys/kernel/random/boot_id"),
            "free_bytes": disk.f_bavail * disk.f_frsize,
        }

    def _take(self, path: str, attempt: int, who: str) -> None:
        """Lock the folder. A keeper that our session lost sight of is killed; another session's makes us busy.

        A session's keepers count its attempts to connect: a late one must not kill the one in use.
        """
        if self._lock is not None:
            return
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + 3.0
            while not self._locked(lock):
                pid, mark, number, holder, *_ = [*os.pread(lock, 4096, 0).decode(errors="replace").split("\n"), *"0000"]
                if mark != self._mark or int(number) >= attempt or time.monotonic() > until:
                    raise RefusedError("busy", "it is in use by " + holder[:100])
                if mark.encode() in _words(int(pid)):
                    _kill(int(pid))
                time.sleep(0.05)
            os.ftruncate(lock, 0)
            os.pwrite(lock, "\n".join([str(os.getpid()), self._mark, str(attempt), who, ""]).encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    @staticmethod
    def _locked(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Leave nothing running and nothing temporary. Whoever does not hold the lock has nothing to tidy."""
        if self._lock is not None:
            self._kill_probes()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _kill_probes(self, mark: bytes = b"") -> None:
        """Kill the probes of this folder (the one with this mark); nobody else's, since we hold the folder's lock."""
        models = os.fsencode(self._models) + b"/"
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            words = _words(pid)
            marked = mark in words if mark else any(word.startswith(_PROBE) for word in words)
            if marked and any(word.startswith(models) for word in words):
                _kill(pid)

    # -------------------------------------------------------------------------------------------------- the files

    def _model(self, name: Any) -> str:
        if not (isinstance(name, str) and _MODEL.fullmatch(name)):
            raise RefusedError("refused", f"not the name of a model: {name!r:.80}")
        return os.path.join(self._models, name)

    def _part(self, name: str) -> str:
        self._model(name)
        return os.path.join(self._models, "." + name + ".part")

    def _inside(self, path: str) -> str:
        if os.path.dirname(path) not in (self._models, self._scratch) or os.path.basename(path) in ("", ".", ".."):
            raise RefusedError("refused", f"not a file of this session: {path!r:.200}")
        return path

    def _evict(self, limit: int) -> int:
        """Remove models, least recently used first, until `limit` bytes are left; how many went. Not those in use."""
        names = [name for name in os.listdir(self._models) if _MODEL.fullmatch(name)]
        kept = {name: os.stat(os.path.join(self._models, name)) for name in names}
        total, freed = sum(each.st_size for each in kept.values()), 0
        for name in sorted(kept, key=lambda name: kept[name].st_mtime):
            if total - freed <= limit:
                break
            if name not in self._used:
                _remove(os.path.join(self._models, name))
                freed += kept[name].st_size
        return freed

    def _have(self, name: str, size: int) -> dict[str, Any]:
        path = self._model(name)
        there = os.path.exists(path) and os.stat(path).st_size == size
        # A power cut may have left the right size and the wrong bytes: looked at once a session.
        if there and (name in self._used or _sha256(path) == name[:64]):
            os.utime(path)
            self._used.add(name)
            return {"there": True, "size": size}
        _remove(path)
        return {"there": False, "size": min(_size(self._part(name)), size)}

    def _put(self, name: str, offset: int, data: str) -> dict[str, Any]:
        part = self._part(name)
        if _size(part) < offset:
            return {"size": _size(part)}
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.seek(offset)
                stream.truncate()
                stream.write(base64.b64decode(data))
        except OSError as error:
            if error.errno in _FULL and self._evict(-1):  # what is only kept must not stand in the way
                return self._put(name, offset, data)
            _remove(part)
            raise
        return {"size": _size(part)}

    def _keep(self, name: str) -> dict[str, Any]:
        path, part = self._model(name), self._part(name)
        if not os.path.exists(part):
            # Asked again, since the first answer was lost: perhaps of the keeper before, whose link was cut.
            if os.path.exists(path) and (name in self._used or _sha256(path) == name[:64]):
                self._used.add(name)
                return {}
            raise RefusedError("garbled", "nothing of the file arrived")
        if _sha256(part) != name[:64]:
            _remove(part)
            raise RefusedError("garbled", "the file did not arrive as it was sent (SHA-256 differs)")
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
        self._used.add(name)
        self._evict(self._limit)
        return {}

    def _stat(self, path: str) -> dict[str, Any]:
        if not os.path.isfile(self._inside(path)):
            raise RefusedError("missing", "there is no such file")
        return {"size": os.stat(path).st_size, "sha256": _sha256(path)}

    def _get(self, path: str, offset: int, size: int) -> dict[str, Any]:
        with open(self._inside(path), "rb") as stream:
            stream.seek(offset)
            return {"data": base64.b64encode(stream.read(min(size, _BLOCK))).decode()}

    def _remove(self, path: str) -> dict[str, Any]:
        _remove(self._inside(path))
        self._used.discard(os.path.basename(path))
        return {}

    def _clean(self) -> dict[str, Any]:
        return {"bytes": self._evict(-1)}

    def _kill(self, mark: str) -> dict[str, Any]:
        self._kill_probes(mark.encode())
        return {}

    def _sh(self, script: str, words: list[str], limit_s: float) -> dict[str, Any]:
        # As bytes: a login without a locale must not change a name on its way.
        command = [word.encode() for word in ["sh", "-c", script, "sh", *words]]
        with subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise RefusedError("timeout", "a command did not end in time") from None
        code = process.returncode
        return {"code": code if code >= 0 else 128 - code, "text": said[-_BLOCK:].decode(errors="replace")}

    def _beat(self) -> dict[str, Any]:
        return {}

    # ----------------------------------------------------------------------------------------------- the requests

    _OPS = ("open", "have", "put", "keep", "stat", "get", "remove", "clean", "kill", "sh", "beat")

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one line, whatever it holds."""
        op = number = None
        try:
            request = json.loads(line)
            op, number = request.pop("op"), request.pop("n")
            if op not in self._OPS or (self._lock is None and op != "open"):
                raise RefusedError("refused", f"no such request now: {op!r:.40}")
            return {"ok": True, **getattr(self, "_" + op)(**request), "n": number}
        except RefusedError as refusal:
            kind, text = refusal.kind, str(refusal)
        except OSError as error:
            # A disk that fails is not the fault of the file that was asked about.
            kind = "full" if error.errno in _FULL else "refused" if op in ("open", "get") else "crashed"
            text = f"{error.strerror}: {error.filename}"
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer says so
            kind, text = "crashed", f"{type(error).__name__}: {error}"
        told = " ".join(text.split())
        # Too long a message loses its middle: its end may hold the numbers.
        said = told if len(told) <= 500 else f"{told[:160]} ... {told[-335:]}"
        return {"ok": False, "kind": kind, "error": said, "n": number}

    def serve(self) -> None:
        """Answer until stdin ends or falls silent."""
        pieces: list[bytes] = []
        while select.select([0], [], [], self.patience_s)[0]:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                text = json.dumps(self.answer(b"".join([*pieces, line])))
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
                pieces = []
            pieces.append(rest)


def main() -> None:
    """Serve one session; its mark is the last argument."""
    mark = sys.argv[-1]
    sys.stdout.write(mark + "\n")
    sys.stdout.flush()
    keeper = Keeper(mark)
    try:
        keeper.serve()
    finally:
        keeper.close()


if __name__ == "__main__":
    main()

"""Temporary folders that tell whether their maker lives, so that later processes remove what killed ones left.

TMPDIR/edgeprune-XXXX/.lock    locked (flock) while the process that made the folder lives; holds the machine's name
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

_LOCK = ".lock"
#: First letters of our folders; the short one leaves room for the name of a socket.
LONG, SHORT = "edgeprune-", "ep-"
#: Seconds after which a folder without its name was left by a process that is gone: to lock one takes milliseconds.
_UNFINISHED_S = 20.0


class TemporaryFolder:
    """A private folder of this process; `path` is where."""

    def __init__(self, prefix: str = LONG, where: str | None = None) -> None:
        """Make it in `where` (None: TMPDIR or /tmp). Raises OSError."""
        # It gets its name when it is locked: nobody may take it for left behind in between.
        made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=where))
        (made / _LOCK).write_text(platform.node())
        self._lock = filelock.FileLock(made / _LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
        with contextlib.suppress(NotImplementedError):  # without locks it works, and stays when this process is killed
            self._lock.acquire()
        self.path = made.rename(made.with_name(made.name[1:]))

    def remove(self) -> None:
        """Remove the folder; never raises."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._lock.release()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder for the length of a `with` block. Raises OSError."""
    folder = TemporaryFolder()
    try:
        yield folder.path
    finally:
        folder.remove()


def sweep() -> list[Path]:
    """Remove this user's temporary folders whose makers were killed on this machine; which ones."""
    places = {Path(tempfile.gettempdir()), Path("/tmp")}
    found = [each for place in places for first in (LONG, SHORT) for each in place.glob(f"{first}*")]
    unnamed = [each for place in places for first in (LONG, SHORT) for each in place.glob(f".{first}*")]
    return sorted([each for each in found if _mine(each) and _left(each)] + [each for each in unnamed if _old(each)])


def _mine(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _left(folder: Path) -> bool:
    """Remove a folder that nobody holds; whether it has gone. Others may do the same at this moment."""
    with contextlib.suppress(OSError, NotImplementedError, filelock.Timeout):
        # Of another machine it says nothing whether the lock is free: not all file systems pass locks on.
        if not (folder / _LOCK).is_file() or (folder / _LOCK).read_text()[:200] != platform.node():
            return False
        with filelock.FileLock(folder / _LOCK, timeout=0, thread_local=False, fallback_to_soft=False):
            # The lock last: a probe that is just ending may still write there, and what is left is for another time.
            for each in folder.iterdir():
                if each.is_dir() and not each.is_symlink():
                    shutil.rmtree(each)
                elif each.name != _LOCK:
                    each.unlink(missing_ok=True)
            (folder / _LOCK).unlink()
            folder.rmdir()
            return True
    return False


def _old(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        if _mine(folder) and time.time() - folder.lstat().st_mtime > _UNFINISHED_S:
            shutil.rmtree(folder)
            return True
    return False

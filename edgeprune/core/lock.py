"""One folder, one owner: the process that writes there, for as long as it lives.

FOLDER/.lock    locked (flock) by the owner. The system lets go of it when the process ends, also when it is killed
FOLDER/.owner   {"host", "pid", "since"} of the owner, touched every few seconds; removed when the folder is given back

The lock decides, the note is for messages. Only where the lock says nothing is the note believed: a file system that
several machines share may not pass locks on, so a note of another machine that was touched lately keeps us out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.files import storing, write_json
from edgeprune.core.processes import alive, this_host

LOCK, OWNER = ".lock", ".owner"
#: A process that is killed needs a moment to end, and so does one that it has just forked to let go of the lock.
_WAIT_S = 1.0
#: Seconds between two touches of the note, and after which the note of another machine counts as left behind.
_TOUCH_S, _STALE_S = 15.0, 120.0


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that owns a folder, as its note says."""

    #: The machine with its space of process numbers, as `processes.this_host`; the machine's name alone.
    host: str
    node: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.node}, since {self.since}"


class FolderLock:
    """A folder that is ours until `close`. Child processes do not inherit it, forked ones included."""

    def __init__(self, folder: Path, what: str) -> None:
        """Take the folder, which exists; `what` names it in messages ("run 'first'").

        Raises UsageError that names the owner where another process has it, StorageError where it cannot be written.
        """
        self._note = folder / OWNER
        self._me = Owner(
            this_host(), platform.node(), os.getpid(), datetime.now().astimezone().isoformat("T", "seconds")
        )
        self._ended = threading.Event()
        # Threads may each run a job: the lock is this object's and not a thread's. A soft lock would outlive a kill.
        self._lock = filelock.FileLock(folder / LOCK, timeout=_WAIT_S, thread_local=False, fallback_to_soft=False)
        #: Whose folder it was, where that process did not give it back: it was killed.
        self.left_by: Owner | None = None
        with storing(folder):
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise _in_use(what, _read(self._note)) from None
            except NotImplementedError as error:
                raise StorageError(
                    f"the file system of {folder} has no locks, so two processes could write there at once",
                    "choose a folder on another disk (--runs-dir; of a bench or of Shapley values: --out)",
                ) from error
        try:
            self.left_by = _read(self._note)
            if self.left_by is not None and self.left_by.host != this_host() and self._age_s(folder) < _STALE_S:
                raise _in_use(what, self.left_by, f"; if it is gone, try again in {_STALE_S:.0f} s")
            write_json(self._note, dataclasses.asdict(self._me))
        except BaseException:
            self._lock.release()
            raise
        threading.Thread(target=self._touch, name=f"owner of {folder}", daemon=True).start()

    def close(self) -> None:
        """Give the folder back; never raises. It may have been removed meanwhile, and be another process's by now."""
        self._ended.set()
        with contextlib.suppress(OSError):
            if _read(self._note) == self._me:
                self._note.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._lock.release()

    def _age_s(self, folder: Path) -> float:
        """Seconds since the note was touched, by the clock of the file system: another machine's may differ."""
        with storing(folder):
            os.utime(folder / LOCK)
            return (folder / LOCK).stat().st_mtime - self._note.stat().st_mtime

    def _touch(self) -> None:
        while not self._ended.wait(_TOUCH_S):
            with contextlib.suppress(OSError):
                os.utime(self._note)


def holder(folder: Path) -> str:
    """Who owns a folder now, in words, or "" where nobody does. Nothing is written there, and nobody is kept out.

    Where the lock cannot be looked at, the note alone decides: of a process of this machine whether it lives, of
    another machine's whether the note was touched lately.
    """
    note = _read(folder / OWNER)
    try:
        with (folder / LOCK).open("rb") as stream:
            # The lock is shared and let go of at once: a process that begins at this moment waits longer than that.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another process" if note is None else str(note)
    except OSError:
        if note is not None and note.host == this_host() and alive(note.pid):
            return str(note)
    if note is None or note.host == this_host():
        return ""
    with contextlib.suppress(OSError):
        if time.time() - (folder / OWNER).stat().st_mtime < _STALE_S:
            return str(note)
    return ""


def discard_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but the lock: a refused request should not leave it behind."""
    with contextlib.suppress(OSError):
        if {each.name for each in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def _read(note: Path) -> Owner | None:
    """Who wrote the note; None where there is none, or what is there says nobody."""
    try:
        said = json.loads(note.read_bytes())
        owner = Owner(str(said["host"])[:200], str(said["node"])[:100], int(said["pid"]), str(said["since"])[:40])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return owner


def _in_use(what: str, owner: Owner | None, more: str = "") -> UsageError:
    if owner is None:  # it has just begun, and its note is not there yet
        return UsageError(f"{what} is in use by another process", "wait for it to end")
    here = owner.host == this_host() and alive(owner.pid)
    stop = f"stop it: kill {owner.pid}" if here else f"stop it on {owner.node}"
    return UsageError(f"{what} is in use by {owner}", f"wait for it to end, or {stop}{more}")

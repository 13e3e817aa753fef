"""A folder on a device that holds releases: what `release.sh` does there, step by step, and why it may not.

DIR/current -> releases/NAME    the release that runs
DIR/releases/NAME/              whole ones only
DIR/.edgeprune/                 DIR is ours; holds `lock`, a link whose text is its owner, and what is unfinished
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.processes import alive, this_host
from edgeprune.core.session import Answer, ShellSession
from edgeprune.core.text import shorten
from edgeprune.devices import ChannelError

T = TypeVar("T")

_SCRIPT = Path(__file__).with_name("release.sh")
#: Seconds that a step may take, and one that waits for the disk; bytes a second that even a slow card reads or writes.
_STEP_S, _SYNC_S, _LEAST_BYTES_PER_S = 120.0, 600.0, 500_000
#: Of a release: a counter, when, which bundle. Whatever else lies there is not ours.
_NAME = re.compile(r"(\d{4,9})-\d{8}T\d{6}Z-[0-9a-f]{8}", re.ASCII)
#: A lock whose owner was not heard of for so many seconds was left by one that is gone.
STALE_S = 900
#: Seconds for which a link that is cut is tried again. A session over ssh has waited as long by itself before.
_PATIENCE_S, _PAUSE_S = 60.0, 0.5
#: Exit codes of release.sh.
_HOME, _NO_PARENT, _FOREIGN, _NO_LINKS, _LOCKED, _LOST_LOCK, _NO_LINK, _DAMAGED, _NOTHING = range(80, 89)

#: Locks that this process holds: one of a deployment that lost its device is ours to take.
_HELD: set[str] = set()


@dataclass(frozen=True, slots=True)
class Listing:
    """What a place holds."""

    #: The folder, as the device names it.
    here: str
    #: The release that runs; "" where none does.
    current: str
    #: The text of each release's deploy.json by its name, oldest first.
    releases: dict[str, str]


class Place:
    """DIR on a device. Only inside `with place.locked():` is anything changed there."""

    def __init__(self, session: ShellSession, folder: str) -> None:
        """`folder` is absolute, on a phone, else may be relative to the home folder (ssh) or the working one (local).

        Raises UsageError where it is no such path.
        """
        self._session = session
        self._kind = session.spec.kind
        self._token = secrets.token_hex(8)
        self._who = f"{this_host()} {os.getpid()} {self._token}"
        self.folder = self._checked(folder)
        #: The folder as the device names it; known once it is locked.
        self.here = ""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """DIR is made where it is not there, and is ours alone; what is unfinished in the end goes.

        Raises UsageError where it may not be ours, ChannelError("busy") where somebody else deploys there.
        """
        _HELD.add(self._token)
        lost = False
        try:
            self._take()
            yield
        except ChannelError as error:
            lost = error.kind == "lost"
            raise
        finally:
            # Who just waited for a device in vain does not wait again.
            if not lost:
                with contextlib.suppress(DeviceError):
                    self._run("close")
            _HELD.discard(self._token)

    def listing(self) -> Listing | None:
        """What is there; None where nothing was ever deployed."""
        answer = self._run("list")
        if answer.code == _NOTHING:
            return None
        here, current, releases = "", "", {}
        for line in self._good(answer).splitlines():
            word, _, rest = line.partition(" ")
            if word == "here":
                here = rest
            elif word == "current":
                current = rest.removeprefix("releases/")
            elif word == "release" and _NAME.fullmatch(name := rest.partition(" ")[0]):
                releases[name] = rest.partition(" ")[2]
        return Listing(here, current, dict(sorted(releases.items(), key=lambda each: number(each[0]))))

    def sound(self, name: str, size: int) -> str:
        """SHA-256 of the SHA256SUMS of a release of `size` bytes where all its files are as that says, else ""."""
        answer = self._run("sound", name, limit_s=_within_s(size))
        return "" if answer.code in (1, _DAMAGED) else self._good(answer).strip()

    def put(self, name: str, file: Path) -> str:
        """Put a file into a release that is being made; its folder there. What was there before is not sent again."""
        remote = _persist(lambda: self._session.push(file))
        limit_s = _within_s(2 * file.stat().st_size)
        self._do("put", name, remote, file.name, sha256_file(file), limit_s=limit_s)
        return f"{self.here}/.edgeprune/{self._token}/{name}"

    def commit(self, name: str) -> None:
        """The release that was made runs from now on."""
        self._do("commit", name, limit_s=_SYNC_S)

    def point(self, name: str) -> None:
        """A release that is there runs from now on."""
        self._do("point", name, limit_s=_SYNC_S)

    def prune(self, names: Sequence[str]) -> None:
        """Remove releases, never the current one."""
        self._do("prune", *names)

    # ---------------------------------------------------------------------------------------------------- the lock

    def _take(self) -> None:
        for _ in range(3):
            answer = self._run("open")
            if answer.code != _LOCKED:
                self.here = self._good(answer).splitlines()[-1]
                return
            held, now = [*answer.text.splitlines()[-2:], ""][:2]
            if not (age_s := _age_s(held, now)) > STALE_S and _lives(held):
                host, pid, *_ = [*held.split(" "), "?"]
                raise ChannelError(
                    "busy",
                    f"process {pid} on {host} is deploying to {self._shown} (last heard of {max(0, age_s):.0f} s ago)",
                    f"wait for it to end; if it is gone, try again {STALE_S} s after it was heard of",
                )
            self._do("break", held)
        raise ChannelError("busy", f"others are deploying to {self._shown}", "wait for them to end")

    # ------------------------------------------------------------------------------------------------ the commands

    @property
    def _shown(self) -> str:
        return f"{self.folder} on {self._session.spec.name}"

    def _run(self, op: str, *words: str, limit_s: float = _STEP_S) -> Answer:
        script = _SCRIPT.read_text(encoding="utf-8")
        given = [op, self.folder, self._who, *words]
        return _persist(lambda: self._session.sh(script, given, Deadline.after(limit_s)))

    def _do(self, op: str, *words: str, limit_s: float = _STEP_S) -> str:
        return self._good(self._run(op, *words, limit_s=limit_s))

    def _good(self, answer: Answer) -> str:
        """What a step said. Raises what its exit code means."""
        if answer.code == 0:
            return answer.text
        if "No space left on device" in answer.text or "Disk quota exceeded" in answer.text:
            raise ChannelError(
                "full", f"no room for another release in {self._shown}; the old one runs on", "free some space there"
            )
        example = f"--to {self._example}"
        parent = self.folder.rpartition("/")[0] or "/"
        usage = {
            _HOME: (f"{self._shown} is / or a home folder", f"give a folder for this alone, for example {example}"),
            _NO_PARENT: (f"there is no folder {parent} on {self._session.spec.name}", self._advice(parent)),
            _FOREIGN: (f"{self._shown} holds files that are not ours", f"give a new folder, for example {example}"),
            _NO_LINKS: (
                f"{self._shown}: its file system has no links, so releases cannot be switched whole",
                f"give a folder on another one, for example {example}",
            ),
            _NO_LINK: (f"{self.folder}/current on {self._session.spec.name} is not a link of ours", "move it away"),
        }
        if answer.code in usage:
            raise UsageError(*usage[answer.code])
        if answer.code == _LOST_LOCK:
            raise ChannelError("busy", f"another deployment to {self._shown} took over", "try again when it is done")
        if answer.code == _DAMAGED:
            raise ChannelError("garbled", f"a file did not arrive in {self._shown} as it was sent (SHA-256 differs)")
        said = [line for line in answer.text.splitlines() if line.strip()] or [f"exit code {answer.code}"]
        raise DeviceError(f"cannot deploy to {self._shown}: {shorten(said[-1], 200)}", retryable=False)

    # -------------------------------------------------------------------------------------------------- the folder

    @property
    def _example(self) -> str:
        return {"adb": "/data/local/tmp/app", "ssh": "app"}.get(self._kind, "./app")

    def _advice(self, parent: str) -> str:
        made = f"mkdir -p {shlex.quote(parent)}"
        if self._kind == "ssh" and self.folder.startswith("/"):
            return f"make it there ({made}), or take one in the home folder there: --to {self._example}"
        return f"make it there: {made}"

    def _checked(self, folder: str) -> str:
        if not folder.strip() or not folder.isprintable():
            raise UsageError(f"--to: {folder!a:.200} is no folder", f"write it like --to {self._example}")
        if self._kind == "local":
            return str(Path(folder).expanduser().absolute())
        if self._kind == "adb" and not folder.startswith("/"):
            raise UsageError(
                f"--to: expected an absolute path on a phone, got {folder!r:.200}", f"write --to {self._example}"
            )
        return folder.rstrip("/") or "/"


def number(name: str) -> int:
    """The counter in a release's name."""
    return int(name.partition("-")[0])


def _within_s(size: int) -> float:
    return _STEP_S + size / _LEAST_BYTES_PER_S


def _persist(work: Callable[[], T]) -> T:
    """`work`, again where the link was cut."""
    away: Deadline | None = None
    while True:
        try:
            return work()
        except ChannelError as error:
            away = away or Deadline.after(_PATIENCE_S)
            if error.kind != "lost" or not error.retryable or away.left() <= 0:
                raise
        time.sleep(_PAUSE_S)


def _age_s(held: str, now: str) -> float:
    """Seconds since the owner of a lock was heard of, by the device's uptime; infinite where it was restarted since."""
    *_, boot, then = [*held.split(" "), "", ""][:5]
    boot_now, _, seconds = now.partition(" ")
    if boot != boot_now:
        return float("inf")
    age = int(seconds) - int(then) if seconds.isdigit() and then.isdigit() else 0
    return age if age >= 0 else float("inf")


def _lives(held: str) -> bool:
    """Whether the owner of a lock may be alive: of another machine nobody knows."""
    host, pid, token, *_ = [*held.split(" "), "", ""]
    if host != this_host() or not pid.isdigit():
        return True
    return token in _HELD if int(pid) == os.getpid() else alive(int(pid))

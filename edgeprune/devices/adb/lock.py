"""Who uses a phone: a folder on it that only one program can make.

`lock/owner` in our folder on the phone holds "HOST PID TOKEN" of that program, and each of its commands touches it.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.processes import alive, this_host
from edgeprune.core.session import Answer
from edgeprune.devices.adb.client import Adb, check_room
from edgeprune.devices.channel import ChannelError

#: Seconds that a short command may take.
QUICK_S = 30.0
#: A lock that nobody touched for so many seconds belongs to a program that is gone.
STALE_S = 900
#: Exit code and text of a command that found the lock to be another program's.
_NOT_OURS = Answer(91, "edgeprune: not ours\n")
#: Exit code where the folder is somebody's own.
_FOREIGN = 92

#: Locks this process holds: one of a session that lost its phone before it could give it back is ours to take.
_HELD: set[str] = set()


class PhoneLock:
    """The lock of one session, in `folder` on the phone of `adb`."""

    def __init__(self, adb: Adb, folder: str) -> None:
        self._adb = adb
        self._folder = folder
        self._token = secrets.token_hex(8)

    @property
    def place(self) -> str:
        """The lock's folder, quoted for the phone's shell; removing it gives the phone back."""
        return shlex.quote(f"{self._folder}/lock")

    def take(self, leftover: str) -> None:
        """Make the lock, then end what an earlier session left running (`leftover`, a command) and empty its scratch.

        Raises ChannelError("busy") where another program uses the phone, DeviceError where the folder is not to be had.
        """
        folder, lock = shlex.quote(self._folder), self.place
        me = shlex.quote(f"{this_host()} {os.getpid()} {self._token}")
        for _ in range(2):
            answer = self._adb.shell(
                f"[ -e {folder}/cache ] || [ -e {lock} ] || [ ! -e {folder}/scratch ] || exit {_FOREIGN}; "
                f"mkdir -p {folder}/cache && if mkdir {lock}; then echo {me} > {lock}/owner && {leftover} "
                f"&& rm -rf {folder}/scratch && mkdir {folder}/scratch; "
                f"else [ -d {lock} ] && exit {_NOT_OURS.code}; fi",
                Deadline.after(QUICK_S),
            )
            if answer.code == 0:
                _HELD.add(self._token)
                return
            if answer.code == _FOREIGN:
                raise DeviceError(
                    f"{self._folder} on the phone holds a scratch folder that is not ours",
                    "give another --folder",
                    retryable=False,
                )
            if answer.code != _NOT_OURS.code:
                check_room(answer.text)
                said = answer.text.strip()[-200:]
                hint = "give the device another folder, one that the shell user may write"
                raise DeviceError(f"cannot use {self._folder} on the phone: {said}", hint, retryable=False)
            self._break()
        raise self._busy("another program", 0)

    def guarded(self, command: str) -> str:
        """A command line that does `command` while we hold the lock; see `check`."""
        owner = shlex.quote(f"{self._folder}/lock/owner")
        refusal = f"echo {shlex.quote(_NOT_OURS.text.strip())}; exit {_NOT_OURS.code}"
        return f"if grep -qF {self._token} {owner} 2>/dev/null; then touch {owner}; else {refusal}; fi\n{command}"

    def check(self, answer: Answer) -> None:
        """Raises ChannelError("busy") where a guarded command found the lock to be another program's."""
        if answer == _NOT_OURS:
            raise ChannelError(
                "busy",
                f"another program took phone {self._adb.serial} over",
                "start anew when it is done",
                retryable=False,
            )

    def forget(self) -> None:
        """This process holds it no longer; what is left of it on the phone may be taken away."""
        _HELD.discard(self._token)

    def _break(self) -> None:
        """Take a lock away from a program that is gone. Raises ChannelError("busy") where it may be alive."""
        lock = self.place
        answer = self._adb.shell(
            f"echo $(( $(date +%s) - $(stat -c %Y {lock}/owner || stat -c %Y {lock}) )); cat {lock}/owner",
            Deadline.after(QUICK_S),
        )
        found = re.search(r"^(-?\d{1,15})\n(?:(\S{1,100}) (\d{1,9}) ([0-9a-f]{16}))?", answer.text, re.MULTILINE)
        age_s, host, pid, token = found.groups("") if found else ("0", "", "", "")
        # A program of this machine may hold it in silence, while it trains.
        gone = not _alive(int(pid), token) if host == this_host() else int(age_s) > STALE_S
        if not gone:
            raise self._busy(f"edgeprune on {host}, process {pid}" if host else "another program", int(age_s))
        # Renamed first, which only one can; put back where it was renewed in between.
        old = shlex.quote(f"{self._folder}/lock.{secrets.token_hex(8)}")
        renewed = f"grep -qF {token} {old}/owner || mv {old} {lock}; " if token else ""
        self._adb.shell(f"mv {lock} {old} && {{ {renewed}rm -rf {old}; }}", Deadline.after(QUICK_S))

    def _busy(self, whose: str, age_s: int) -> ChannelError:
        return ChannelError(
            "busy",
            f"phone {self._adb.serial} is in use by {whose} (last heard of {max(0, age_s)} s ago)",
            f"wait for it; where it is gone, type: adb -s {self._adb.serial} shell rm -r {self._folder}/lock",
        )


def _alive(pid: int, token: str) -> bool:
    """Whether the process of this machine that holds the lock is there."""
    return token in _HELD if pid == os.getpid() else alive(pid)

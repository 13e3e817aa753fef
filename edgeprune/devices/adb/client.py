"""The real `adb` client as a child process: which phones there are, one shell command, one file up or down.

The client exits 0 with cut output when the phone dies in the middle of a command, so every command ends with a line
that only a command which came to its end prints; where it is missing, the phone is lost. Every client process has a
deadline. `ADB_SERVER_SOCKET` and `ANDROID_ADB_SERVER_PORT` are the client's business and reach it untouched.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.session import Answer
from edgeprune.devices.channel import ChannelError, last_line

MAX_OUTPUT_BYTES = 8 << 20
#: The least is what a server needs to start.
_LEAST_LIST_S, _LIST_S = 5.0, 20.0
_LEAST_CONNECT_S, _LONGEST_CONNECT_S = 2.0, 10.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0

#: `adb://SERIAL`, with what adb accepts and shows as a serial: never an option, never anything that a shell would look
#: at twice.
ADDRESS = re.compile(r"adb://(?P<serial>[A-Za-z0-9\[][A-Za-z0-9._:%\[\]@()+=-]{0,127})?")
_OVER_TCP = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+):[0-9]{1,5}")
_LISTED = re.compile(r"(\(no serial number\)|\S{1,200}) +(no permissions|[a-z]+)\b")

#: Per state that `adb devices` shows: what it means, what to do, whether waiting may help.
_STATES: dict[str, tuple[str, str, bool]] = {
    "unauthorized": (
        "the phone does not trust this machine yet",
        "unlock it and accept 'Allow USB debugging?', then try again",
        False,
    ),
    "authorizing": ("the phone is still checking this machine's key", "unlock it and wait a moment", True),
    "connecting": ("the phone is still connecting", "wait a moment", True),
    "offline": ("the phone does not answer (offline)", "plug it in again, or type: adb reconnect offline", True),
    "no permissions": (
        "this user may not open the phone's USB device",
        "type: sudo apt-get install android-sdk-platform-tools-common && sudo usermod -aG plugdev $USER, log in again "
        "and plug the phone in again",
        False,
    ),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A phone in `adb devices`."""

    serial: str
    state: str


def parse_address(address: str) -> str:
    """`adb://SERIAL` -> the serial, "" where the only phone is meant. Raises DeviceError."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise DeviceError(
            f"{address!r:.200} is no address of a phone",
            "type adb:// for the only phone, or adb://SERIAL with a serial that `adb devices` shows, "
            "or adb://HOST:PORT for one on the network",
            retryable=False,
        )
    return found["serial"] or ""


def parse_devices(output: str) -> list[Listed]:
    """What `adb devices -l` printed; lines that are no phone's are left out."""
    _, _, rest = output.partition("List of devices attached")
    found = (_LISTED.match(line) for line in rest.splitlines()[:1000])
    return [Listed(match[1], match[2]) for match in found if match]


def choose(listed: Sequence[Listed], serial: str) -> str:
    """The serial of the phone that is meant and ready.

    Raises ChannelError("lost") that says why there is none, and DeviceError where several phones could be meant.
    """
    if not serial and len(listed) > 1:
        known = ", ".join(each.serial for each in listed)
        raise DeviceError(
            f"several phones are connected: {known}",
            f"say which: give the device's address as adb://{listed[0].serial}",
            retryable=False,
        )
    meant = [each for each in listed if not serial or each.serial == serial]
    if not meant:
        others = ", ".join(each.serial for each in listed)
        raise ChannelError(
            "lost",
            f"phone {serial} is not connected" + (f" (connected: {others})" if others else "")
            if serial
            else "no phone is connected",
            "switch USB debugging on in the phone's developer options and plug it in; `adb devices` must show it",
        )
    phone = meant[0]
    if phone.state == "device":
        return phone.serial
    what, advice, may_pass = _STATES.get(
        phone.state, (f"the phone is in the state {phone.state!r}, not running Android", "type: adb reboot", False)
    )
    raise ChannelError("lost", f"{phone.serial}: {what}", advice, retryable=may_pass)


class Adb:
    """The adb client, and the one phone it is to talk to."""

    def __init__(self, address: str) -> None:
        """Raises DeviceError where the address is none or the client is not installed; talks to nobody yet."""
        self._wanted = parse_address(address)
        self.serial = self._wanted
        program = shutil.which("adb")
        if program is None:
            raise DeviceError(
                "the program adb is not installed on this machine", "type: sudo apt-get install adb", retryable=False
            )
        self._program = program

    def connect(self, patience: Deadline) -> None:
        """Return when the phone is ready, asked again at growing intervals. Raises what is in the way at last."""
        pause = _PAUSE_S
        while True:
            try:
                self.serial = self._find(patience)
                return
            except ChannelError as error:
                if not error.retryable or patience.left() <= 0:
                    raise
            time.sleep(min(pause, patience.left()))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def shell(self, command: str, deadline: Deadline) -> Answer:
        """Run a command line of the phone's shell.

        Raises ChannelError: "lost" where it did not come to its end, "timeout", "garbled" where it printed too much.
        """
        token = f"__edgeprune_{secrets.token_hex(8)}"
        # A subshell, so that an `exit` in the command cannot jump over the last line.
        line = f"( {command}\n) 2>&1; echo {token} $?"
        _, out, errors = self._run(["shell", "-T", line], deadline)
        text = out.decode(errors="replace").replace("\r\n", "\n")
        found = re.search(rf"{token} ([0-9]{{1,3}})\s*\Z", text)
        if found is None:
            raise self._lost(errors)
        return Answer(int(found[1]), text[: found.start()])

    def push(self, local: Path, remote: str, deadline: Deadline) -> None:
        """Copy a file to the phone. Raises ChannelError: "full", "lost", "timeout"; DeviceError where it may not."""
        self._copy(["push", str(local.absolute()), remote], deadline)

    def pull(self, remote: str, local: Path, deadline: Deadline) -> None:
        """Copy a file from the phone. Raises like `push`."""
        self._copy(["pull", remote, str(local.absolute())], deadline)

    def _copy(self, command: list[str], deadline: Deadline) -> None:
        code, out, errors = self._run(command, deadline)
        if code == 0:
            return
        said = (out + errors).decode(errors="replace")
        check_room(said)
        for reason in ("Permission denied", "Read-only file system", "No such file", "Is a directory"):
            if reason in said:
                raise DeviceError(f"adb cannot copy: {reason}: {command[-1]}", retryable=False)
        raise self._lost(errors or out)

    def _find(self, patience: Deadline) -> str:
        listed = self._list(patience)
        if _OVER_TCP.fullmatch(self._wanted) and Listed(self._wanted, "device") not in listed:
            listed = self._dial(patience)
        # Once chosen it is that phone, also where others were plugged in meanwhile.
        return choose(listed, self.serial)

    def _list(self, patience: Deadline) -> list[Listed]:
        code, out, errors = self._run(["devices", "-l"], _within(patience, _LEAST_LIST_S, _LIST_S), to_phone=False)
        if code != 0:
            said = last_line((errors or out).decode(errors="replace"))
            raise ChannelError(
                "lost", f"the adb server does not answer: {said}", "type: adb kill-server && adb devices"
            )
        return parse_devices(out.decode(errors="replace"))

    def _dial(self, patience: Deadline) -> list[Listed]:
        """Over the network a phone that went away stays listed as offline until it is disconnected."""
        self._run(["disconnect", self._wanted], _within(patience, _LEAST_LIST_S, _LIST_S), to_phone=False)
        # Its exit code does not say whether it connected; the list does.
        with contextlib.suppress(ChannelError):
            deadline = _within(patience, _LEAST_CONNECT_S, _LONGEST_CONNECT_S)
            self._run(["connect", self._wanted], deadline, to_phone=False)
        return self._list(patience)

    def _lost(self, said: bytes) -> ChannelError:
        why = last_line(said.decode(errors="replace"))
        return ChannelError(
            "lost",
            f"the link to phone {self.serial} was cut" + (f": {why}" if why else ""),
            "look at the cable and at `adb devices`",
        )

    def _run(self, command: Sequence[str], deadline: Deadline, *, to_phone: bool = True) -> tuple[int, bytes, bytes]:
        """Run the client; its exit code, stdout and stderr. Raises ChannelError "timeout" or "garbled"."""
        whom = ["-s", self.serial] if to_phone else []
        with subprocess.Popen(
            [self._program, *whom, *command],
            # Nothing is ever written there. Its end tells the phone that this program has gone, see `while_heard`.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches us and not it; and it can be ended with all its children
        ) as process:
            try:
                out, errors = _read(process, deadline)
                return process.wait(timeout=max(1.0, deadline.left())), out, errors
            except subprocess.TimeoutExpired as error:
                raise _too_late() from error
            finally:
                if process.returncode is None:
                    with contextlib.suppress(OSError):
                        os.killpg(process.pid, signal.SIGKILL)


def while_heard(command: str) -> str:
    """The command line that does `command` and ends it, with its children, when the program at this end is gone."""
    # The shell gives what it starts with & an empty stdin, so the real one has to be handed over as 3. `cat` waits
    # there and takes no time of the processor. A stopped process starts nothing more while its children are ended.
    end = "kill -STOP $p; pkill -9 -P $p; kill -9 $p"
    return (
        f"exec 3<&0; {{ {command}\n}} & p=$!; {{ cat <&3; {end}; }} >/dev/null 2>&1 & w=$!; "
        "wait $p; c=$?; kill $w; ( exit $c )"
    )


def check_room(said: str) -> None:
    """Raise ChannelError("full") where a phone's program said that there is no room."""
    if "No space left on device" in said or "Disk quota exceeded" in said:
        raise ChannelError(
            "full", "no room on the phone", "free some space there, or type: edgeprune devices clean NAME"
        )


def _read(process: subprocess.Popen[bytes], deadline: Deadline) -> tuple[bytes, bytes]:
    """All of stdout and stderr, at most MAX_OUTPUT_BYTES of each."""
    said: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                said[pipe.fileno()] = bytearray()
                selector.register(pipe.fileno(), selectors.EVENT_READ)
        kept = list(said.values())
        while selector.get_map():
            if deadline.left() <= 0:
                raise _too_late()
            for key, _ in selector.select(deadline.left()):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                said[key.fd] += chunk
                if len(said[key.fd]) > MAX_OUTPUT_BYTES:
                    raise ChannelError("garbled", f"the phone printed more than {MAX_OUTPUT_BYTES} bytes")
    return bytes(kept[0]), bytes(kept[1])


def _within(patience: Deadline, least_s: float, most_s: float) -> Deadline:
    """What is left of `patience`, within bounds."""
    return Deadline.after(min(most_s, max(least_s, patience.left())))


def _too_late() -> ChannelError:
    return ChannelError("timeout", "the phone did not answer in time")

"""A phone reached with the real `adb` client.

There is no Python for the shell user of a phone, so nothing of ours runs there: the channel answers the probe's
requests on this machine and runs Google's `benchmark_model` on the phone (see `adb_channel`). A phone with Termux and
its sshd can run the probe itself and is an ssh device: `ssh://HOST:8022`.

In the folder on the phone (default /data/local/tmp/edgeprune):

    cache/SHA256.SUFFIX     files by the hash of their content, the least recently used removed first
    scratch/                what a session writes; emptied by the next one
    lock/owner              the program that uses the phone (see `adb_lock`)
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.session import Answer, DeviceSpec
from edgeprune.core.text import shorten
from edgeprune.devices.adb.benchmark_model import HELP_URL
from edgeprune.devices.adb.channel import AdbChannel
from edgeprune.devices.adb.client import Adb, check_room
from edgeprune.devices.adb.lock import QUICK_S, STALE_S, PhoneLock
from edgeprune.devices.adb.runner import end_leftover
from edgeprune.devices.channel import ChannelError
from edgeprune.devices.common import plain_name

FOLDER = "/data/local/tmp/edgeprune"
#: No command takes longer than half of the time after which our lock counts as given up.
_LONGEST_COMMAND_S = STALE_S / 2
_HASHING_S = 90.0
#: What a slow link moves in a second, to give a copy its deadline.
_LEAST_BYTES_PER_S = 500_000
#: At the start nobody waits long for a phone that is not there.
_OPENING_S = 5.0


class AdbSession:
    """A `Session` (see `edgeprune.core.session`) on a phone; a context manager. Not for several threads at once."""

    def __init__(self, spec: DeviceSpec, *, patience_s: float = 30.0) -> None:
        """Find the phone and take it for us alone; a link lost later is waited for, `patience_s` each time.

        Raises DeviceError where adb or the phone is not there or not ready, ChannelError("busy") where another program
        uses it.
        """
        self._spec = spec
        self._patience_s = patience_s
        self._folder = _checked_folder(spec.folder)
        self._channels: list[AdbChannel] = []
        self._in_use: set[str] = set()
        self._connected = self._closed = False
        self._facts: Mapping[str, Any] | None = None
        self._adb = Adb(spec.address)
        self._adb.connect(Deadline.after(min(_OPENING_S, patience_s)))
        self._connected = True
        self._lock = PhoneLock(self._adb, self._folder)
        self._lock.take(end_leftover(self.scratch("pid")))

    @property
    def spec(self) -> DeviceSpec:
        """What was opened."""
        return self._spec

    def facts(self) -> Mapping[str, Any]:
        """What the phone is; the channel's `hello` adds the runtime."""
        if self._facts is None:
            self._facts = self._read_facts()
        return self._facts

    def push(self, path: Path) -> str:
        """Put a file into the phone's cache under the hash of its content.

        Raises DeviceError; ChannelError("full") where the phone has no room, "lost" where it went away.
        """
        try:
            digest, size = sha256_file(path), path.stat().st_size
        except OSError as error:
            raise DeviceError(f"cannot read {path}: {error.strerror}", retryable=False) from error
        name = f"{digest}{_plain_suffix(path)}"
        target = f"{self._folder}/cache/{name}"
        self._in_use.add(name)
        if self._digest(target) == digest:
            self._do(f"touch {shlex.quote(target)}")
            return target
        self._make_room(size)
        self.send(path, target)
        return target

    def send(self, path: Path, target: str) -> None:
        """Copy a file to a place in our folder, whole or not at all. Raises like `push`."""
        temporary = f"{self._folder}/scratch/.{secrets.token_hex(8)}.tmp"
        try:
            self._within(temporary)
            self._reach(Deadline.after(self._patience_s))
            with self._noticing():
                self._adb.push(path, temporary, _copying(path.stat().st_size))
            if self._digest(temporary) != sha256_file(path):
                raise ChannelError("lost", f"{path.name} arrived damaged on the phone", "look at the cable")
            there, final = shlex.quote(temporary), shlex.quote(self._within(target))
            self._do(f"chmod 755 {there} && mv -f {there} {final}")
        except BaseException:
            with contextlib.suppress(DeviceError):
                if self._connected:
                    self._do(f"rm -f {shlex.quote(temporary)}")
            raise

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file, whole or not at all. Raises DeviceError."""
        digest = self._digest(remote)
        if digest is None:
            raise DeviceError(f"there is no file {remote} on the phone", retryable=False)
        size = self._do(f"stat -c %s {shlex.quote(remote)}").text.strip()
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with self._noticing():
                self._adb.pull(remote, temporary, _copying(int(size) if size.isdigit() else 0))
            if sha256_file(temporary) != digest:
                raise ChannelError("lost", f"{path.name} arrived damaged from the phone", "look at the cable")
            temporary.replace(path)
        except OSError as error:
            raise DeviceError(f"cannot keep {path}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def scratch(self, name: str) -> str:
        """A path on the phone where the channel may write. Raises ValueError unless `name` is a plain file name."""
        return f"{self._folder}/scratch/{plain_name(name)}"

    def remove(self, remote: str) -> None:
        """Remove a file in our folder; a missing one is no error. Raises DeviceError."""
        self._do(f"rm -f {shlex.quote(self._within(remote))}")

    def start(self, probe: Path) -> AdbChannel:
        """A channel that answers the probe's requests with benchmark_model; `probe` itself stays here.

        Raises DeviceError where the spec names no benchmark_model, or the phone does not come back.
        """
        del probe
        given = self._spec.benchmark_model
        if not given or not Path(given).is_file():
            raise DeviceError(
                f"there is no file {given}" if given else "Google's benchmark_model is needed to measure on a phone",
                f"it is a program that LiteRT is timed with, see {HELP_URL}: get or build the one for this phone "
                f"({self.facts()['machine'] or 'see adb shell getprop ro.product.cpu.abi'}) and name it: "
                f"edgeprune devices add {'NAME' if '://' in self._spec.name else self._spec.name} {self._spec.address} "
                "--benchmark-model FILE --replace",
                retryable=False,
            )
        binary = Path(given)
        channel = AdbChannel(self, self.push(binary), sha256_file(binary))
        self._channels = [*(each for each in self._channels if not each.closed), channel]
        return channel

    def clean(self) -> int:
        """Remove what earlier sessions left in the phone's cache; how many bytes that freed. Raises DeviceError."""
        files = self._cached()
        self._forget([name for _, _, name in files])
        return sum(size for _, size, _ in files)

    def close(self) -> None:
        """End the channels and give the phone back; never raises."""
        for channel in self._channels:
            channel.close()
        if self._connected and not self._closed:
            scratch = shlex.quote(f"{self._folder}/scratch")
            with contextlib.suppress(DeviceError):
                command = f"{end_leftover(self.scratch('pid'))}; rm -rf {scratch} {self._lock.place}"
                self.shell(command, Deadline.after(QUICK_S))
        self._closed = True
        self._lock.forget()

    def __enter__(self) -> AdbSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def sh(self, script: str, words: Sequence[str], deadline: Deadline) -> Answer:
        """See `ShellSession.sh`; not repeated here. Raises as `shell`."""
        return self.shell(f"{shlex.join(['sh', '-c', script, 'sh', *words])} </dev/null", deadline)

    def shell(self, command: str, deadline: Deadline) -> Answer:
        """Run a command line on the phone while we hold it; whatever came from elsewhere is quoted by the caller.

        Raises ChannelError: "lost", "timeout", "garbled", and "busy" where another program took the phone over.
        """
        self._reach(deadline)
        with self._noticing():
            answer = self._adb.shell(self._lock.guarded(command), _shorter(deadline))
        self._lock.check(answer)
        return answer

    def _reach(self, deadline: Deadline) -> None:
        """Wait for a phone that was lost, no longer than until `deadline`. Raises ChannelError."""
        if self._closed:
            raise ChannelError("lost", "the session is closed")
        if not self._connected:
            self._adb.connect(Deadline.after(min(self._patience_s, deadline.left())))
            self._connected = True

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except ChannelError as error:
            # After a hang as well: the server may think that a phone is there which no longer answers.
            self._connected = self._connected and error.kind not in ("lost", "timeout")
            raise

    def _do(self, command: str) -> Answer:
        """A short command that has to succeed. Raises ChannelError, and DeviceError where it did not."""
        answer = self.shell(command, Deadline.after(QUICK_S))
        if answer.code != 0:
            check_room(answer.text)
            said = answer.text.strip().splitlines() or [f"exit code {answer.code}"]
            raise DeviceError(f"a command failed on phone {self._adb.serial}: {shorten(said[-1], 200)}")
        return answer

    def _within(self, remote: str) -> str:
        """`remote` where it is a file of ours. Raises DeviceError."""
        folder, _, name = remote.rpartition("/")
        if folder not in (f"{self._folder}/cache", f"{self._folder}/scratch") or name in ("", ".", ".."):
            raise DeviceError(f"{remote!r:.200} is not in {self._folder}", retryable=False)
        return remote

    def _digest(self, remote: str) -> str | None:
        """SHA-256 of a file on the phone, None where there is none."""
        answer = self.shell(f"sha256sum < {shlex.quote(remote)}", Deadline.after(_HASHING_S))
        found = re.match(r"([0-9a-f]{64})\b", answer.text)
        if answer.code == 0 and found is None:
            raise ChannelError("garbled", f"the phone's sha256sum said no hash: {answer.text[:80]!r}")
        return found[1] if answer.code == 0 and found else None

    # ------------------------------------------------------------------------------------------------- the cache

    def _cached(self) -> list[tuple[int, int, str]]:
        """Time of last use, bytes and name of the files of earlier sessions, the least recently used first."""
        answer = self._do(
            f"cd {shlex.quote(self._folder)}/cache && "
            'for f in *; do [ -f "$f" ] && stat -c \'%Y %s %n\' "$f"; done; true'
        )
        rows = (
            re.fullmatch(r"(\d{1,15}) (\d{1,15}) ([0-9a-f]{64}[.\w]{0,16})", row) for row in answer.text.splitlines()
        )
        return sorted((int(row[1]), int(row[2]), row[3]) for row in rows if row and row[3] not in self._in_use)

    def _make_room(self, size: int) -> None:
        """Keep what earlier sessions left, with a new file of `size` bytes, within the limit of the cache."""
        files = self._cached()
        used, gone = size + sum(each for _, each, _ in files), []
        for _, each, name in files:
            if used <= self._spec.cache_bytes:
                break
            gone.append(name)
            used -= each
        self._forget(gone)

    def _forget(self, names: list[str]) -> None:
        for start in range(0, len(names), 200):
            listed = " ".join(map(shlex.quote, names[start : start + 200]))
            self._do(f"cd {shlex.quote(self._folder)}/cache && rm -f {listed}")

    # ------------------------------------------------------------------------------------------------- the facts

    def _read_facts(self) -> dict[str, Any]:
        text = self._do('getprop; echo; nproc; grep MemTotal /proc/meminfo; echo "release=$(uname -r)"').text
        props = dict(re.findall(r"^\[([\w.-]{1,100})\]: \[(.{0,500})\]$", text, re.MULTILINE))
        cores, memory = (
            re.search(r"^(\d{1,4})$", text, re.MULTILINE),
            re.search(r"^MemTotal: +(\d{1,15}) kB", text, re.MULTILINE),
        )
        release = re.search(r"^release=(.{0,100})$", text, re.MULTILINE)
        maker, model = (props.get(f"ro.product.{key}", "") for key in ("manufacturer", "model"))
        emulated = props.get("ro.kernel.qemu") == "1" or props.get("ro.boot.qemu") == "1"
        return {
            "device": self._spec.name,
            "kind": self._spec.kind,
            "emulated": emulated or props.get("ro.hardware") in ("goldfish", "ranchu", "cutf_cvm"),
            "machine": props.get("ro.product.cpu.abi", ""),
            "system": "Android",
            "cpu": next(
                (props[key] for key in ("ro.soc.model", "ro.board.platform", "ro.hardware") if props.get(key)),
                "unknown",
            ),
            "model": f"{maker} {model}".strip(),
            "android": props.get("ro.build.version.release", ""),
            "build": props.get("ro.build.fingerprint", ""),
            "release": release[1] if release else "",
            "serial": self._adb.serial,
            "cores": int(cores[1]) if cores else None,
            "memory_bytes": int(memory[1]) * 1024 if memory else None,
        }


def _checked_folder(folder: str) -> str:
    folder = folder.rstrip("/") or FOLDER
    if not folder.startswith("/") or ".." in folder.split("/") or not folder.isprintable():
        raise DeviceError(
            f"{folder!r:.200} is no folder on a phone", f"give an absolute path, for example {FOLDER}", retryable=False
        )
    return folder


def _plain_suffix(path: Path) -> str:
    return path.suffix if re.fullmatch(r"\.[A-Za-z0-9_]{1,15}", path.suffix) else ""


def _copying(size: int) -> Deadline:
    return Deadline.after(QUICK_S + size / _LEAST_BYTES_PER_S)


def _shorter(deadline: Deadline) -> Deadline:
    return min(deadline, Deadline.after(_LONGEST_COMMAND_S), key=Deadline.left)

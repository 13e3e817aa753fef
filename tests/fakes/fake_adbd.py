"""A phone for tests: the device's side of the adb protocol over TCP, which the real `adb` client talks to.

Shell commands run on this machine; /data/local/tmp in commands, in file names and in what they print stands for a
folder of the test. getprop and dumpsys print what the test says. It can be cut off in mid command or mid upload, be
slow, full or unwilling.

Packets: six little-endian words (command, arg0, arg1, length, checksum, command ^ 0xffffffff) and the payload. A stream
sends one WRTE and waits for its OKAY.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

_CNXN, _OPEN, _OKAY, _WRTE, _CLSE, _AUTH = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"OPEN", b"OKAY", b"WRTE", b"CLSE", b"AUTH")
)
_VERSION, _MAX = 0x01000001, 256 * 1024
_BANNER = b"device::ro.product.name=fake;ro.product.model=Fake_Phone;ro.product.device=fake;features=shell_v2,cmd\0"

PROPERTIES = {
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.soc.model": "FK1000",
    "ro.hardware": "fake",
    "ro.product.manufacturer": "Nobody",
    "ro.product.model": "Fake Phone",
    "ro.build.version.release": "14",
    "ro.build.fingerprint": "nobody/fake/fake:14/X/1:user/release-keys",
}
BATTERY = "Current Battery Service state:\n  level: 81\n  temperature: 312\n"
THERMAL = """IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=84.208, mType=0, mName=CPU, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=57.9, mType=0, mName=CPU, mStatus=0}
\tTemperature{mValue=34.351, mType=3, mName=SKIN, mStatus=0}
\tTemperature{mValue=0.0, mType=4, mName=USB, mStatus=0}
\tTemperature{mValue=99.0, mType=8, mName=soc, mStatus=0}
"""


class FakePhone:
    """A context manager; `address` is what `adb connect` takes."""

    def __init__(self, root: Path, path: str = "") -> None:
        self.root = root / "data" / "local" / "tmp"
        self.root.mkdir(parents=True)
        self.properties = dict(PROPERTIES)
        self.env = {"PATH": f"{root / 'bin'}:{path or os.environ['PATH']}", "LC_ALL": "C"}
        #: Every command line that came in.
        self.commands: list[str] = []
        #: Cut the link, and end what runs, so many seconds after a command that matches began. Happens once.
        self.cut_command: str = ""
        self.cut_after_s = 0.1
        #: Cut the link after so many bytes of an upload. Happens once.
        self.cut_upload: int | None = None
        #: Bytes of an upload that fit.
        self.room: int | None = None
        self.slow_s = 0.0
        self.away = self.untrusting = False
        self._links: set[_Link] = set()
        self._bin = root / "bin"
        self._bin.mkdir()
        self._listener = socket.create_server(("127.0.0.1", _free_port()))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.say(
            "dumpsys",
            f"[ $1 = battery ] && cat <<'END'\n{BATTERY}END\n[ $1 = thermalservice ] && cat <<'END'\n{THERMAL}END\n",
        )
        self.tell()

    def say(self, program: str, script: str) -> None:
        """Install a program on the phone."""
        path = self._bin / program
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)

    def tell(self, **properties: str) -> None:
        """Change what getprop says; dots in names as double underscores."""
        self.properties.update({name.replace("__", "."): value for name, value in properties.items()})
        lines = "".join(f"[{name}]: [{value}]\n" for name, value in self.properties.items())
        self.say("getprop", f"cat <<'END'\n{lines}END\n")

    def cut(self) -> None:
        """Pull the plug: links and what they run end."""
        for link in list(self._links):
            link.cut()

    def __enter__(self) -> FakePhone:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.away = True
        self._listener.close()
        self.cut()

    def here(self, path: str) -> str:
        """What a path or a command means on this machine."""
        return path.replace("/data/local/tmp", str(self.root))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self.away:
                    connection.close()
                    continue
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = _Link(self, connection)
                self._links.add(link)
                threading.Thread(target=link.serve, daemon=True).start()


class _Link:
    """One connection of an adb server."""

    def __init__(self, phone: FakePhone, connection: socket.socket) -> None:
        self.phone = phone
        self._connection = connection
        self._lock = threading.Lock()
        self.streams: dict[int, _Stream] = {}
        self.running: set[subprocess.Popen[bytes]] = set()

    def send(self, command: int, one: int, two: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, one, two, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._lock:
            self._connection.sendall(head + data)

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        for process in list(self.running):
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)

    def serve(self) -> None:
        number = 0
        try:
            while True:
                command, one, two, length, _, _ = struct.unpack("<6I", self._read(24))
                data = self._read(length)
                if command in (_CNXN, _AUTH) and self.phone.untrusting:
                    if one != 3:  # a public key would be shown to the owner, who never answers
                        self.send(_AUTH, 1, 0, b"?" * 20)
                elif command == _CNXN:
                    self.send(_CNXN, _VERSION, _MAX, _BANNER)
                elif command == _OPEN:
                    number += 1
                    stream = self.streams[number] = _Stream(self, number, one, data.rstrip(b"\0").decode())
                    threading.Thread(target=stream.serve, daemon=True).start()
                elif command == _WRTE and two in self.streams:
                    self.streams[two].incoming.put(data)
                    self.send(_OKAY, two, one)
                elif command == _OKAY and two in self.streams:
                    self.streams[two].taken.release()
                elif command == _CLSE and two in self.streams:
                    self.streams.pop(two).end()
        except (EOFError, OSError):
            pass
        finally:
            self.phone._links.discard(self)
            for stream in list(self.streams.values()):
                stream.end()
            self.cut()
            self._connection.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._connection.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data


class _Stream:
    """One service: a shell command or file transfers."""

    def __init__(self, link: _Link, mine: int, theirs: int, service: str) -> None:
        self._link, self._mine, self._theirs, self._service = link, mine, theirs, service
        self.incoming: queue.Queue[bytes] = queue.Queue()
        self.taken = threading.Semaphore(0)
        self._closed = False
        self._rest = b""

    def end(self) -> None:
        self._closed = True
        self.incoming.put(b"")
        self.taken.release()

    def serve(self) -> None:
        try:
            self._link.send(_OKAY, self._mine, self._theirs)
            if self._service == "sync:":
                self._sync()
            elif self._service.startswith("shell"):
                self._shell(self._service.partition(":")[2])
        except (EOFError, OSError):
            pass
        with contextlib.suppress(OSError):
            if not self._closed:
                self._link.send(_CLSE, self._mine, self._theirs)
        self._link.streams.pop(self._mine, None)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX // 2):
            if self._closed:
                raise EOFError
            self._link.send(_WRTE, self._mine, self._theirs, data[start : start + _MAX // 2])
            self.taken.acquire()

    def _read(self, count: int) -> bytes:
        while len(self._rest) < count:
            data = self.incoming.get()
            if not data:
                raise EOFError
            self._rest += data
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def _shell(self, command: str) -> None:
        phone = self._link.phone
        phone.commands.append(command)
        time.sleep(phone.slow_s)
        process = subprocess.Popen(
            ["sh", "-c", phone.here(command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=phone.root,
            env=phone.env,
            start_new_session=True,
        )
        self._link.running.add(process)
        if phone.cut_command and re.search(phone.cut_command, command):
            phone.cut_command = ""
            threading.Timer(phone.cut_after_s, self._link.cut).start()
        threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
        assert process.stdout is not None
        with process, contextlib.closing(process.stdout) as pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                data = data.replace(str(phone.root).encode(), b"/data/local/tmp")
                self._write(struct.pack("<BI", 1, len(data)) + data)
        self._link.running.discard(process)
        self._write(struct.pack("<BIB", 3, 1, process.wait() & 255))

    def _feed(self, stdin: IO[bytes]) -> None:
        """Packets of a shell's stdin: 0 is data, 4 its end, which comes as well when the client is gone."""
        # ValueError: a shell that has ended closes its stdin, which may be before this thread first looks at it.
        with contextlib.suppress(EOFError, OSError, ValueError), stdin:
            while True:
                kind, length = struct.unpack("<BI", self._read(5))
                data = self._read(length)
                if kind == 4:
                    return
                if kind == 0:
                    stdin.write(data)
                    stdin.flush()

    def _sync(self) -> None:
        requests: dict[bytes, Callable[[str], None]] = {
            b"STAT": self._stat,
            b"SEND": self._receive,
            b"RECV": self._give,
        }
        while True:
            request, length = struct.unpack("<4sI", self._read(8))
            if request == b"QUIT":
                return
            requests[request](self._read(length).decode())

    def _stat(self, path: str) -> None:
        try:
            found = os.stat(self._link.phone.here(path))
            fields = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            fields = (0, 0, 0)
        self._write(struct.pack("<4s3I", b"STAT", *fields))

    def _receive(self, path_and_mode: str) -> None:
        phone, got, problem = self._link.phone, 0, ""
        path = Path(phone.here(path_and_mode.rpartition(",")[0]))
        try:
            path.write_bytes(b"")
        except OSError as error:
            path, problem = Path(os.devnull), f"couldn't create file: {error.strerror}"
        with path.open("ab") as file:
            while True:
                kind, length = struct.unpack("<4sI", self._read(8))
                if kind == b"DONE":
                    break
                data = self._read(length)
                got += len(data)
                if phone.cut_upload is not None and got > phone.cut_upload:
                    phone.cut_upload = None
                    self._link.cut()
                if phone.room is not None and got > phone.room:
                    problem = "No space left on device"
                else:
                    file.write(data)
                    file.flush()
        self._answer(problem)

    def _answer(self, problem: str) -> None:
        said = problem.encode()
        self._write(struct.pack("<4sI", b"FAIL" if said else b"OKAY", len(said)) + said)

    def _give(self, path: str) -> None:
        try:
            with open(self._link.phone.here(path), "rb") as file:
                while data := file.read(1 << 16):
                    self._write(struct.pack("<4sI", b"DATA", len(data)) + data)
        except OSError as error:
            self._answer(error.strerror or "failed")
            return
        self._write(struct.pack("<4sI", b"DONE", 0))


def _free_port() -> int:
    """One that adb does not take for an emulator's, as it does from 5555 to 5585."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        if not 5555 <= port <= 5585:
            return port

"""A board that is reached over SSH, with OpenSSH's own client (docs/decisions/0005-openssh-client.md).

So ~/.ssh/config, agents, jump hosts, hardware keys and known_hosts are honoured; the environment variable
EDGEPRUNE_SSH_CONFIG may name another configuration file. Host keys are always checked and nothing is ever asked for.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.session import Answer, DeviceSpec
from edgeprune.devices.channel import ChannelError
from edgeprune.devices.common import PINS, STEADY, plain_name
from edgeprune.devices.ssh.link import FOLDER, SshLink, count
from edgeprune.devices.ssh.openssh import SSH_FAILED, SshChannel, quote, remote_command, stream

#: A link of 3 kB/s moves one within the time of a request.
_CHUNK_BYTES = 128 << 10
_SUFFIX = re.compile(r"\.\w{1,16}", re.ASCII)
#: Arguments of `env`. A login may set where Python looks for its packages.
_PROBE_ENVIRONMENT = (
    *("-u", "PYTHONPATH", "-u", "PYTHONHOME"),
    *(f"{name}={value}" for name, value in STEADY.items()),
)
#: sh stays as the parent: ssh passes on no signal, and so one that killed the probe becomes an exit code.
_START = 'cd "$1" && echo "$2" && shift 2 && env "$@"; exit $?'
_SETUP_S = 1800.0
#: How much longer a script's answer may take than the script.
_SLACK_S = 15.0
#: The last with wheels for Python 3.9.
_OLD_PINS: Mapping[str, str] = MappingProxyType({"onnxruntime": "1.19.2", "ai-edge-litert": "2.1.0"})
#: A 32-bit board has wheels of nothing else, and none of numpy: that is the system's.
_ARM32_PACKAGES = ("tflite-runtime==2.14.0", "numpy<2")


class SshSession:
    """A `Session` (see `edgeprune.core.session`) on a board; also a context manager. Not for several threads at once.

    A request that finds the link cut connects again and is repeated, until `patience_s` after it was first cut; then it
    raises ChannelError("lost"). An upload goes on where it was cut.
    """

    def __init__(self, spec: DeviceSpec, *, patience_s: float = 60.0, heartbeat_s: float = 30.0) -> None:
        """Connect and lock the board's folder. The board ends our processes `heartbeat_s` after it last heard of us.

        Raises UsageError where the address is none, DeviceError where the board cannot be reached or has no Python, and
        ChannelError("busy") where another session still holds the folder after `patience_s`.
        """
        self._spec = spec
        self._link = SshLink(spec, patience_s, heartbeat_s)
        self._channels: list[ProbeChannel] = []
        self._numbers = itertools.count()

    @property
    def spec(self) -> DeviceSpec:
        """What was opened."""
        return self._spec

    def facts(self) -> Mapping[str, Any]:
        """What the machine is, as it was when the session opened; `free_bytes` of the disk too."""
        return self._link.facts

    def push(self, path: Path) -> str:
        """Put a file into the board's cache; one that is there is not sent again. Raises DeviceError."""
        try:
            digest, size = sha256_file(path), path.stat().st_size
            name = digest + (path.suffix if _SUFFIX.fullmatch(path.suffix) else "")
            have = self._link.ask("have", name=name, size=size)
            if have.get("there") is not True:
                with path.open("rb") as content:
                    self._upload(content, name, size, count(have, "size"))
        except OSError as error:
            raise DeviceError(f"cannot read {path}: {error.strerror}") from error
        return f"{self._link.facts['models']}/{name}"

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file of this session. Raises DeviceError."""
        stat = self._link.ask("stat", path=remote)
        temporary = path.with_name(f".{path.name}.{self._link.token}.part")
        try:
            with temporary.open("wb") as content:
                self._download(content, remote, count(stat, "size"))
            if sha256_file(temporary) != stat.get("sha256"):
                raise ChannelError("garbled", f"{remote} is not what it was on {self._spec.name} (SHA-256 differs)")
            temporary.replace(path)
        except OSError as error:
            raise DeviceError(f"cannot write {path}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def scratch(self, name: str) -> str:
        """A path on the board where the probe may write. Raises ValueError unless `name` is a plain file name."""
        return f"{self._link.facts['scratch']}/{plain_name(name)}"

    def remove(self, remote: str) -> None:
        """Remove a file of this session; a missing one is no error. Raises DeviceError."""
        self._link.ask("remove", path=remote)

    def start(self, probe: Path) -> ProbeChannel:
        """Start the probe file with the board's Python, in the scratch folder. Raises DeviceError."""
        remote = self.push(probe)
        channel = ProbeChannel(self._spec.name, self._link, remote, next(self._numbers))
        self._channels = [*(each for each in self._channels if not each.closed), channel]
        return channel

    def clean(self) -> int:
        """Remove the models on the board that this session did not use; the bytes that freed. Raises DeviceError."""
        return count(self._link.ask("clean"), "bytes")

    def run(self, command: Sequence[str], limit_s: float, hear: Callable[[str], None]) -> int:
        """Run an argument list on the board, `hear` each line it says; its exit code.

        Raises ChannelError ("timeout" after `limit_s`, "lost" where the link was cut), and UsageError as `quote` does.
        """
        self._link.ask("beat")  # connects, where the link was cut
        code = stream(self._link.command(remote_command(command)), Deadline.after(limit_s), hear)
        if code == SSH_FAILED:
            raise ChannelError("lost", f"the link to {self._spec.name} was cut while {command[0]} ran")
        return code

    def sh(self, script: str, words: Sequence[str], deadline: Deadline) -> Answer:
        """See `ShellSession.sh`; it is repeated as every request is."""
        left = deadline.left()
        answer = self._link.ask("sh", left + _SLACK_S, script=script, words=list(words), limit_s=left)
        return Answer(count(answer, "code"), str(answer.get("text")))

    def close(self) -> None:
        """End the probes and the connection; never raises."""
        for channel in self._channels:
            channel.kill()
        self._link.close()

    def __enter__(self) -> SshSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _upload(self, content: BinaryIO, name: str, size: int, offset: int) -> None:
        """Send from `offset` on; what arrived before the link was cut is not sent again."""
        try:
            self._send(content, name, size, offset)
        except ChannelError as error:
            if error.kind != "garbled" or not offset:
                raise
            self._send(content, name, size, 0)  # what was there was no good, and is gone

    def _send(self, content: BinaryIO, name: str, size: int, offset: int) -> None:
        # An empty file takes a chunk too. A board that crashed may have lost some, but not again and again.
        for _ in range(2 * (size // _CHUNK_BYTES) + 8):
            content.seek(offset)
            data = base64.b64encode(content.read(_CHUNK_BYTES)).decode()
            offset = count(self._link.ask("put", name=name, offset=offset, data=data), "size")
            if offset >= size:
                self._link.ask("keep", name=name)
                return
        raise ChannelError("garbled", f"{self._spec.name} does not keep what it is sent")

    def _download(self, content: BinaryIO, remote: str, size: int) -> None:
        offset = 0
        while offset < size:
            answer = self._link.ask("get", path=remote, offset=offset, size=_CHUNK_BYTES)
            try:
                data = base64.b64decode(str(answer.get("data")), validate=True)
            except binascii.Error:
                data = b""
            if not data:
                raise ChannelError("garbled", f"{remote} ended before its size on {self._spec.name}")
            content.write(data)
            offset += len(data)


class ProbeChannel(SshChannel):
    """A probe on the board. A request may take a few seconds longer than its deadline: the link is asked why."""

    def __init__(self, name: str, link: SshLink, remote: str, number: int) -> None:
        """Start the file `remote` of the board called `name`; `number` tells the probes of a session apart."""
        self._link = link
        self._mark = f"edgeprune-probe-{link.token}-{number}"
        words = [link.facts["scratch"], self._mark, *_PROBE_ENVIRONMENT, link.python, "-u", remote, self._mark]
        command = link.command(remote_command(["sh", "-c", _START, "sh", *words]))
        super().__init__(name, link.address, command, self._mark)

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """See `Channel.request`. A probe that does not answer over a link that does not either is "lost"."""
        was_closed = self.closed
        try:
            return super().request(message, deadline)
        except ChannelError as error:
            # A busy probe does not notice that its channel is gone: the keeper ends it.
            if not was_closed and not self._link.end_probe(self._mark) and error.kind == "timeout":
                raise ChannelError("lost", f"the link to {self._name} does not answer") from error
            raise

    def close(self) -> None:
        """End the probe, here and there; never raises."""
        if not self.closed:
            super().close()
            self._link.end_probe(self._mark)


def setup_board(
    spec: DeviceSpec,
    say: Callable[[str], None],
    runtimes: Sequence[str] = ("onnxruntime", "ai-edge-litert"),
    *,
    dry_run: bool = False,
) -> str:
    """Make a virtual environment with pinned runtimes on the board, from its own package index; the path of its Python.

    With `dry_run` the commands are only said. A 32-bit board gets tflite-runtime, whatever is asked for. Raises
    DeviceError where a command fails.
    """
    anew = spec.python.endswith(f"{(spec.folder or FOLDER).removeprefix('~').rstrip('/')}/venv/bin/python")
    if anew:
        say(f"{spec.python} may be what is broken: python3 makes its environment anew")
        spec = replace(spec, python="")
    with SshSession(spec) as session:
        facts = session.facts()
        for command in setup_commands(spec.python or "python3", facts, runtimes, anew=anew):
            say("$ " + " ".join(map(quote, command)))
            if not dry_run and session.run(command, _SETUP_S, say):
                raise DeviceError(
                    f"{' '.join(command[:3])} failed on {spec.name}: see above",
                    "on Debian or Raspberry Pi OS, first type there: sudo apt install python3-venv python3-numpy",
                    retryable=False,
                )
        return f"{facts['folder']}/venv/bin/python"


def setup_commands(
    python: str, facts: Mapping[str, Any], runtimes: Sequence[str], *, anew: bool = False
) -> list[list[str]]:
    """What `setup_board` runs, given the board's facts; `anew` empties the environment first."""
    folder = f"{facts['folder']}/venv"
    version = tuple(int(part) for part in re.findall(r"\d+", str(facts["python"]))[:2])
    arm32 = str(facts["machine"]).startswith(("armv6", "armv7", "armv8l"))
    pins = PINS if version >= (3, 11) else _OLD_PINS
    packages = _ARM32_PACKAGES if arm32 else [f"{name}=={pins[name]}" for name in runtimes]
    options = ["--disable-pip-version-check", "--only-binary=:all:"]
    return [
        # Without --clear, links to a Python that has gone would stay.
        [python, "-m", "venv", *(["--clear"] if anew else []), *(["--system-site-packages"] if arm32 else []), folder],
        [f"{folder}/bin/python", "-m", "pip", "install", *options, *packages],
    ]

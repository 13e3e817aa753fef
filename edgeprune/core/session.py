"""A device: where it is, and the interface of an open one, which `edgeprune.devices` implements.

Nothing else knows how devices are reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from edgeprune.core.clock import Deadline
from edgeprune.core.kinds import KINDS, DeviceKind, Unit
from edgeprune.core.runtimes import RuntimeName


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """Where a device is and what it needs, passive: opening it is `edgeprune.devices.open_session`."""

    name: str
    kind: DeviceKind
    #: `ssh://[user@]host[:port]`, `adb://[serial]`, or the description file of a simulated device.
    address: str = ""
    #: The known board (see `edgeprune.devices.names.boards`) whose defaults were taken.
    board: str = ""
    #: The Python that runs the probe there; "": the one we run in, or python3 on another machine.
    python: str = ""
    #: Defaults of `--threads` and `--runtime` on this device; None: the program's.
    threads: int | None = None
    runtime: RuntimeName | None = None
    #: Folder on the device for probe and models; "": the transport's own choice.
    folder: str = ""
    #: Models kept there from run to run, at most so many bytes; the least recently used go first.
    cache_bytes: int = 512 << 20
    #: Google's benchmark_model on this machine, for phones.
    benchmark_model: str = ""

    @property
    def emulated(self) -> bool:
        """Whether its processor is an emulated one: it counts instructions and is never called a board."""
        return KINDS[self.kind].counts

    @property
    def unit(self) -> Unit:
        """What latencies of this device are given in."""
        return KINDS[self.kind].unit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command on the device printed (stdout and stderr in one), and its exit code."""

    code: int
    text: str


class Channel(Protocol):
    """A probe process on the device: one JSON object in, one JSON object out."""

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Send one request, wait for its answer.

        Raises ChannelError (see `edgeprune.devices.channel`) when the process died, the deadline passed, or the answer
        is not one line of JSON of a sane size.
        """

    def close(self) -> None:
        """End the process; never raises."""


class Session(Protocol):
    """An open device; also a context manager that closes it."""

    @property
    def spec(self) -> DeviceSpec:
        """What was opened."""

    def facts(self) -> Mapping[str, Any]:
        """What the machine is: `machine`, `cpu`, `cores`, `system`, ... Stable while the session is open."""

    def push(self, path: Path) -> str:
        """Put a file on the device, named by its content; returns its path there. Raises DeviceError."""

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file. Raises DeviceError."""

    def scratch(self, name: str) -> str:
        """A path on the device where the probe may write."""

    def remove(self, remote: str) -> None:
        """Remove a file on the device; a missing one is no error."""

    def start(self, probe: Path) -> Channel:
        """Start the probe file with the device's Python. Raises DeviceError."""

    def clean(self) -> int:
        """Remove the models kept on the device from earlier sessions; how many bytes that freed. Raises DeviceError."""

    def close(self) -> None:
        """Give everything back; never raises."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ShellSession(Session, Protocol):
    """A session on a machine that has a shell and keeps files: of kinds whose row says `shell`."""

    def sh(self, script: str, words: Sequence[str], deadline: Deadline) -> Answer:
        """Run a POSIX shell script there, with `words` as $1, $2, ... whatever they hold; stdin is empty.

        It may be run again where the link is cut meanwhile, also while it still runs: every step of it has to bear
        that. Raises ChannelError: "lost" where it did not come to its end, "timeout".
        """

"""The interface of an open device. `edgeprune.devices` implements it; nothing else knows how devices are reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from edgeprune.core.clock import Deadline
from edgeprune.core.types import DeviceSpec


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

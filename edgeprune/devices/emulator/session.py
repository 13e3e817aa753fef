"""An emulated board as a device: the local session, whose Python runs under qemu and counts instructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from edgeprune.core.errors import DeviceError, did_you_mean
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.emulator import setup
from edgeprune.devices.emulator.boards import BOARDS, BoardName
from edgeprune.devices.local import LocalSession


class EmulatedSession(LocalSession):
    """A `Session` (see `edgeprune.core.session`) on an emulated board; also a context manager."""

    def __init__(self, spec: DeviceSpec) -> None:
        """Open the board `spec.board`, else `spec.name`. Raises DeviceError where it is not set up, or cannot count."""
        name = (spec.board or spec.name).removeprefix("emulated-")
        if name not in BOARDS:
            raise DeviceError(f"no board {name!r} can be emulated", did_you_mean(name, BOARDS), retryable=False)
        self._root = setup.find(cast(BoardName, name))
        self._cpu = BOARDS[cast(BoardName, name)].cpu
        setup.require_plugins()
        self._qemu = setup.qemu_version()
        self._started = 0
        super().__init__(spec)

    def facts(self) -> Mapping[str, Any]:
        """What is emulated, by which qemu, and which set of packages it runs."""
        return {
            "device": self._spec.name,
            "kind": self._spec.kind,
            "emulated": True,
            "machine": "aarch64",
            "system": "Linux",
            "free_bytes": self._free_bytes,
            "core": self._cpu,
            "qemu": self._qemu,
            "packages": setup.contents(self._root),
        }

    def _launch(self, probe: str) -> tuple[list[str], dict[str, str]]:
        """qemu with its counter, in a file of the work folder that is this process's own."""
        self._started += 1
        counter = f"instructions-{self._started:06d}"
        command = setup.guest_command(self._root, ["-u", probe], self._work / counter)
        return command, {**setup.guest_environment(), "EDGEPRUNE_COUNTER": counter}

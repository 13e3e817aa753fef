"""Kinds of devices, one row each, and no other table is keyed by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

#: Seconds; guest instructions of an emulated processor; seconds that a formula or a recording made up. Figures of
#: different units are never compared, and none is converted into another.
Unit = Literal["s", "instructions", "simulated s"]
DeviceKind = Literal["local", "ssh", "adb", "emulated", "simulated"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How devices of a kind are reached, and what that means for what is measured on them."""

    name: DeviceKind
    #: Module and class of its sessions; imported when one is opened: each brings libraries that others do without.
    session: tuple[str, str]
    #: Settings of a device that do something for it.
    settings: tuple[str, ...] = ()
    unit: Unit = "s"
    #: What stands behind its devices' names wherever figures are shown; "" where these are of real devices.
    title: str = ""
    #: It is the machine that edgeprune runs on: what is done here disturbs what is measured.
    here: bool = False
    #: Whether `edgeprune devices setup` installs something.
    is_set_up: bool = False
    #: Whether a Python there runs the probe. Where none does a file cannot be run just once, nor asked again from where
    #: it stood.
    probed: bool = True
    #: Whether it is a machine with a shell, on which files can be left for good: its session is a `ShellSession`.
    shell: bool = False

    @property
    def counts(self) -> bool:
        """Whether it counts instructions of an emulated processor, and so is never called a board."""
        return self.unit == "instructions"

    @property
    def made_up(self) -> bool:
        """Whether a formula or a recording stands for the device."""
        return self.unit == "simulated s"


KINDS: Mapping[DeviceKind, Kind] = MappingProxyType(
    {
        row.name: row
        for row in (
            Kind("local", ("edgeprune.devices.local", "LocalSession"), here=True, shell=True),
            Kind(
                "ssh",
                ("edgeprune.devices.ssh.session", "SshSession"),
                ("address", "board", "python", "threads", "runtime", "folder", "cache_size"),
                is_set_up=True,
                shell=True,
            ),
            Kind(
                "adb",
                ("edgeprune.devices.adb.session", "AdbSession"),
                ("address", "board", "threads", "runtime", "folder", "cache_size", "benchmark_model"),
                probed=False,
                shell=True,
            ),
            Kind(
                "emulated",
                ("edgeprune.devices.emulator.session", "EmulatedSession"),
                unit="instructions",
                title="emulated",
                is_set_up=True,
            ),
            Kind(
                "simulated",
                ("edgeprune.devices.simulated.session", "SimulatedSession"),
                ("address", "python", "threads", "runtime"),
                unit="simulated s",
                title="simulated",
            ),
        )
    }
)

"""Names of devices, and how a name becomes an open session."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgeprune.core.errors import DeviceError, UsageError, did_you_mean
from edgeprune.core.types import DeviceSpec
from edgeprune.devices.local import LocalSession

LOCAL = "local"

#: Boards whose names are known, and what each is. None of them can be reached in this version.
KNOWN_BOARDS: Mapping[str, str] = MappingProxyType(
    {
        "rpi3": "Raspberry Pi 3 (Cortex-A53)",
        "rpi4": "Raspberry Pi 4 (Cortex-A72)",
        "rpi5": "Raspberry Pi 5 (Cortex-A76)",
        "jetson": "NVIDIA Jetson",
        "aarch64": "any 64-bit ARM Linux board",
        "armv7": "any 32-bit ARM Linux board",
        "android": "an Android phone",
        "emulated-rpi3": "an emulated Raspberry Pi 3",
        "emulated-rpi4": "an emulated Raspberry Pi 4",
    }
)


def find_device(name: str, python: str = "") -> DeviceSpec:
    """The device called `name`; `python` is the Python that runs the probe there ("" for the one we run in).

    Raises DeviceError for a known board, since none is reachable yet, and UsageError for an unknown name.
    """
    if name == LOCAL:
        return DeviceSpec(name=LOCAL, kind="local", python=python)
    if name in KNOWN_BOARDS:
        raise DeviceError(
            f"device {name!r} is not configured",
            f"this version does not reach {KNOWN_BOARDS[name]} yet: type --device local to measure on this machine",
            retryable=False,
        )
    raise UsageError(f"unknown device {name!r}", did_you_mean(name, [LOCAL, *KNOWN_BOARDS]))


def open_session(spec: DeviceSpec) -> LocalSession:
    """Open a device; close the session after use (it is a context manager). Raises DeviceError."""
    if spec.kind != LOCAL:
        raise DeviceError(
            f"this version cannot open a device of kind {spec.kind!r}", "use --device local", retryable=False
        )
    return LocalSession(spec)

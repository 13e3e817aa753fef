"""Boards that are known by name, and what each brings: an address is all that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edgeprune.core.runtimes import RuntimeName


@dataclass(frozen=True, slots=True)
class Board:
    """What is known of a board before it is reached; a device's own settings win."""

    title: str
    kind: Literal["ssh", "adb", "emulated"]
    #: An address such as its devices have; "" where none is needed.
    example: str = ""
    #: 32-bit ARM and Android have packages of LiteRT only.
    runtime: RuntimeName = "onnxruntime"
    python: str = "python3"
    #: One: what is measured is one inference after the other, and networks of this size lose more to the threads'
    #: meeting points than they gain.
    threads: int = 1


_PI = "ssh://pi@raspberrypi.local"

#: Emulated ones are devices of their own, which need no address, and are no boards.
KNOWN_BOARDS: Mapping[str, Board] = MappingProxyType(
    {
        "rpi3": Board("Raspberry Pi 3 (Cortex-A53)", "ssh", _PI),
        "rpi4": Board("Raspberry Pi 4 (Cortex-A72)", "ssh", _PI),
        "rpi5": Board("Raspberry Pi 5 (Cortex-A76)", "ssh", _PI),
        "jetson": Board("NVIDIA Jetson", "ssh", "ssh://ubuntu@jetson.local"),
        "aarch64": Board("any 64-bit ARM Linux board", "ssh", "ssh://user@board.local"),
        "armv7": Board("any 32-bit ARM Linux board", "ssh", "ssh://user@board.local", runtime="litert"),
        "android": Board("an Android phone", "adb", "adb://SERIAL", runtime="litert"),
        "emulated-rpi3": Board("an emulated Raspberry Pi 3 (counts instructions)", "emulated"),
        "emulated-rpi4": Board("an emulated Raspberry Pi 4 (counts instructions)", "emulated"),
    }
)

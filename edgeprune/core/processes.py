"""Processes and the machine they run on, as notes on disk name them."""

from __future__ import annotations

import contextlib
import os
import platform
import re

import psutil


def this_host() -> str:
    """This machine, and where it has several, the space of its process numbers: containers may share its name."""
    space = ""
    with contextlib.suppress(OSError):
        space = f"-{os.stat('/proc/self/ns/pid').st_ino}"
    return re.sub(r"[^A-Za-z0-9._-]", "_", platform.node())[:60] + space or "unknown"


def alive(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def crowded(seconds: float = 0.2) -> bool:
    """Whether other programs take a processor that a thread of ours would have; looked at for so many `seconds`."""
    processors = psutil.cpu_count() or 1
    # One thread a core: what torch takes unless it is told otherwise.
    threads = min(psutil.cpu_count(logical=False) or processors, allowed_processors())
    idle = processors * (1 - float(psutil.cpu_percent(seconds)) / 100)
    return idle < threads - 0.5


def allowed_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

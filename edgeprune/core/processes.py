"""Processes and the machine they run on, as notes on disk name them."""

from __future__ import annotations

import contextlib
import os
import platform
import re


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

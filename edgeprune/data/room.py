"""How much memory a data set may take: it is held whole, and asked for before anything is decoded or unpacked."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from edgeprune.core.errors import DataError
from edgeprune.core.units import format_bytes

#: Copies of a data set that are there at once while it is split and brought into one layout.
COPIES = 3
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def free_bytes() -> int:
    """Memory that this process can still have: what the system has left, within the limits of process and container."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    info = Path("/proc/meminfo")
    if info.exists() and (found := re.search(r"MemAvailable: +([0-9]+) kB", info.read_text())):
        limits.append(int(found[1]) * 1024)
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    try:
        most, used = (path.read_text().strip() for path in _CGROUP)
        limits.append(max(0, int(most) - int(used)))
    except (OSError, ValueError):
        pass  # no container, or one without a limit ("max")
    return min(limits)


def require_room(size: int, what: str, hint: str) -> None:
    """Raises DataError with both figures where a data set of `size` bytes does not fit, with its copies."""
    free = free_bytes()
    if COPIES * size > free:
        raise DataError(
            f"{what}: {format_bytes(size)} unpacked, and about {COPIES} times as much while loading, do not fit into "
            f"the {format_bytes(free)} of memory that are free",
            hint,
        )

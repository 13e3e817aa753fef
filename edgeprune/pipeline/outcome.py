"""Is the file that would ship better than the unpruned one? A budget can be met by a file that nobody should copy."""

from __future__ import annotations

from collections.abc import Iterable

from edgeprune.artifacts import READERS
from edgeprune.artifacts.contents import Contents
from edgeprune.core.units import format_bytes, format_speedup, format_speedups
from edgeprune.pipeline.records.files import Drawback
from edgeprune.pipeline.validate import Validated

#: Readings of the same heap differ by 0.1 % in ONNX Runtime: what is within half a percent is not called more.
SAME_MEMORY = 1.005


def drawbacks(item: Validated) -> tuple[Drawback, ...]:
    """Where a validated file is not faster, not smaller, or holds more memory than the unpruned one; with what grew."""
    ours, theirs, measured = item.exported.artifact, item.exported.baseline, item.measurement
    speed = item.speedup
    slower = speed.low <= 1.0
    larger = ours.bytes >= theirs.bytes
    hungrier = measured.peak_bytes > SAME_MEMORY * measured.against_peak_bytes
    if not (slower or larger or hungrier):
        return ()
    after, before = (READERS[file.format].contents(file.path) for file in (ours, theirs))
    added = _added(before, after)
    found = []
    if slower:
        worse = speed.high < 1.0
        how = format_speedup(speed.value, measured.unit) if worse else "not shown to be faster"
        text = f"{how} than the unpruned file ({format_speedups(speed.low, speed.high)}x)"
        found.append(Drawback("latency", worse, text + (f"; {added}" if added else "")))
    constants = after.constant_bytes - before.constant_bytes
    if larger:
        text = f"the file is not smaller: {format_bytes(ours.bytes)}, unpruned {format_bytes(theirs.bytes)}"
        what = f"constants {_signed(constants)}, the rest {_signed(ours.bytes - theirs.bytes - constants)}"
        found.append(Drawback("bytes", ours.bytes > theirs.bytes, _joined((text, what, added))))
    if hungrier:
        held = measured.peak_bytes - measured.against_peak_bytes
        text = f"more memory: {format_bytes(measured.peak_bytes)}, unpruned {format_bytes(measured.against_peak_bytes)}"
        what = (
            f"constants of the file {_signed(constants)}, "
            f"the runtime's own (packed weights, working memory) {_signed(held - constants)}"
        )
        found.append(Drawback("memory", True, _joined((text, what, added))))
    return tuple(found)


def is_worse(found: Iterable[Drawback]) -> bool:
    """Whether a file with these drawbacks was shown to be slower and is larger as well: the run has failed its user."""
    worse = {drawback.what for drawback in found if drawback.worse}
    return {"latency", "bytes"} <= worse


def _added(before: Contents, after: Contents) -> str:
    """The operators that the pruned file has and the unpruned one has not: "1 operator more (Gather)"."""
    more = {kind: count - before.operators.get(kind, 0) for kind, count in after.operators.items()}
    more = {kind: count for kind, count in more.items() if count > 0}
    if not more:
        return ""
    total = sum(more.values())
    names = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(more.items()))
    return f"{total} operator{'s' if total > 1 else ''} more ({names})"


def _signed(size: float) -> str:
    return f"{'+' if size >= 0 else '-'}{format_bytes(abs(size))}"


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)

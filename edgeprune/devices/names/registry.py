"""Names of devices, and how a name becomes an open session."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from edgeprune.core.errors import DeviceError, UsageError, did_you_mean
from edgeprune.core.kinds import KINDS
from edgeprune.core.session import DeviceSpec, Session
from edgeprune.core.temporary import sweep
from edgeprune.devices.names import book
from edgeprune.devices.names.boards import KNOWN_BOARDS
from edgeprune.devices.names.settings import LOCAL, quoted, to_spec

_LOG = logging.getLogger(__name__)


def built_in() -> dict[str, DeviceSpec]:
    """The devices that need no entry in a book: this machine and the emulated ones."""
    emulated = {
        name: DeviceSpec(name, "emulated", board=name, threads=board.threads, runtime=board.runtime)
        for name, board in KNOWN_BOARDS.items()
        if board.kind == "emulated"
    }
    return {LOCAL: DeviceSpec(LOCAL, "local"), **emulated}


def find_device(name: str) -> DeviceSpec:
    """The device called `name`, or at the address `name`.

    Raises DeviceError for a known board without an address, UsageError for an unknown name or a book that is none.
    """
    if name in (fixed := built_in()):
        return fixed[name]
    if "://" in name or "@" in name:
        return _at(name)
    entries = book.entries()
    if name in entries:
        return entries[name].spec
    if name in KNOWN_BOARDS:
        raise DeviceError(
            f"device '{name}' has no address",
            f"type: edgeprune devices add {name} {KNOWN_BOARDS[name].example}",
            retryable=False,
        )
    known = {*fixed, *entries, *KNOWN_BOARDS}
    raise UsageError(f"unknown device {quoted(name)}", did_you_mean(name[:60], known))


def open_session(spec: DeviceSpec) -> Session:
    """Open a device; close the session after use (it is a context manager). Raises DeviceError.

    Temporary folders of sessions whose processes were killed are removed first.
    """
    if left := sweep():
        _LOG.info("removed what killed processes left: %s", ", ".join(map(str, left)))
    module, name = KINDS[spec.kind].session
    opened: Session = getattr(import_module(module), name)(spec)
    return opened


def _at(address: str) -> DeviceSpec:
    """A device that is in no book."""
    spec = to_spec("direct", {"address": address}, Path.cwd())
    return replace(spec, name=address)

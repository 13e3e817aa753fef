"""The settings of a device, as they stand in the book or come from the command line, made into a `DeviceSpec`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.kinds import KINDS, DeviceKind
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.session import DeviceSpec
from edgeprune.core.units import parse_bytes
from edgeprune.devices.adb import client as adb_client
from edgeprune.devices.names.boards import KNOWN_BOARDS
from edgeprune.devices.ssh import openssh

#: The name of the machine that edgeprune runs on.
LOCAL = "local"

#: Every setting that a device of some kind has.
SETTINGS = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.settings))

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADDRESSES = "write ssh://USER@HOST, ssh://USER@HOST:PORT, adb://SERIAL or simulated://FILE.toml"
_LONGEST = 1024
_LARGEST_CACHE = 1 << 50


class Address(NamedTuple):
    """How a device is reached. `text` as in `DeviceSpec.address`: of a simulated device, its file."""

    kind: DeviceKind
    text: str


def check_name(name: str) -> None:
    """Raises UsageError unless `name` may be a device's."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{quoted(name)} is no name for a device", "use letters, digits, '.', '_' and '-', at most 64 of them"
        )


def parse_address(text: str) -> Address:
    """`ssh://[USER@]HOST[:PORT]`, `adb://[SERIAL]` or `simulated://FILE`. Raises UsageError; it tells no password."""
    scheme, found, rest = text.partition("://")
    if scheme == "simulated" and found:
        check_text("address", text)
        if not rest:
            raise UsageError("the address simulated:// names no file", "write simulated://FILE.toml")
        return Address("simulated", rest)
    if ":" in (rest if found else scheme).rpartition("@")[0]:
        raise UsageError(
            "an address holds no password: files and lists of processes would show it to others",
            "use a key: ssh-copy-id USER@HOST puts yours on the board, then write ssh://USER@HOST",
        )
    text = text.removesuffix("/") if rest else text
    if _is_ssh(text):
        return Address("ssh", text)
    if adb_client.ADDRESS.fullmatch(text):
        return Address("adb", text)
    raise UsageError(
        f"{quoted(text)} is no address of a device",
        f"did you mean 'ssh://{text}'?" if _is_ssh(f"ssh://{text}") else _ADDRESSES,
    )


def to_spec(name: str, settings: Mapping[str, Any], base: Path) -> DeviceSpec:
    """A device from its settings and its board's defaults; files are relative to `base`. Raises UsageError."""
    check_name(name)
    if name == LOCAL or (name in KNOWN_BOARDS and KNOWN_BOARDS[name].kind == "emulated"):
        raise UsageError(f"'{name}' is built in and needs no entry", "choose another name")
    for key, value in settings.items():
        if key not in SETTINGS:
            raise UsageError(f"a device has no setting {quoted(key)}", did_you_mean(key, SETTINGS))
        _CHECKS.get(key, check_text)(key, value)
    if "address" not in settings:
        raise UsageError("it has no address", _ADDRESSES)
    address = parse_address(settings["address"])
    for key in settings:
        if key not in KINDS[address.kind].settings:
            raise UsageError(f"{key} does nothing for a device reached by {address.kind}", f"leave {key} out")
    board_name = settings.get("board") or _default_board(name, address)
    board = KNOWN_BOARDS.get(board_name)
    if board and board.kind != address.kind:
        raise UsageError(f"{board_name} is a board reached by {board.kind}", f"give it an address like {board.example}")
    text, benchmark = address.text, settings.get("benchmark_model", "")
    cache = {"cache_bytes": _cache_bytes(settings["cache_size"])} if "cache_size" in settings else {}
    return DeviceSpec(
        name=name,
        kind=address.kind,
        address=_absolute(text, base) if address.kind == "simulated" else text,
        board=board_name,
        python=settings.get("python") or (board.python if board else ""),
        threads=settings.get("threads") or (board.threads if board else None),
        runtime=settings.get("runtime") or (board.runtime if board else None),
        folder=settings.get("folder", ""),
        benchmark_model=benchmark and _absolute(benchmark, base),
        **cache,
    )


def quoted(text: str) -> str:
    """What somebody typed, for a message: in quotes, on one line, without control characters, not long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _is_ssh(text: str) -> bool:
    try:
        openssh.Address.parse(text)
    except UsageError:
        return False
    return True


def _default_board(name: str, address: Address) -> str:
    if name in KNOWN_BOARDS:
        return name
    return "android" if address.kind == "adb" else ""


def _absolute(path: str, base: Path) -> str:
    return str(base.absolute() / Path(path).expanduser())


def check_text(key: str, value: Any) -> None:
    """Raises UsageError unless `value` is one line of text that no program takes for an option."""
    if not isinstance(value, str) or not value or len(value) > _LONGEST or not value.isprintable():
        raise UsageError(f"{key} is {_shown(value)}, not a line of at most {_LONGEST} characters")
    if value.startswith("-"):
        raise UsageError(f"{key} is {quoted(value)}, which a program would take for an option")


def _check_threads(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise UsageError(f"{key} is {_shown(value)}, not a whole number from 1 to 1024")


def _check_runtime(key: str, value: Any) -> None:
    known = get_args(RuntimeName)
    if value not in known:
        raise UsageError(f"there is no {key} {_shown(value)}", did_you_mean(str(value)[:60], known))


def _check_board(key: str, value: Any) -> None:
    known = [name for name, board in KNOWN_BOARDS.items() if board.kind != "emulated"]
    if value not in known:
        raise UsageError(f"there is no known {key} {_shown(value)}", did_you_mean(str(value)[:60], known))


def _check_cache(key: str, value: Any) -> None:
    check_text(key, value)
    _cache_bytes(value)


def _cache_bytes(value: str) -> int:
    bound = parse_bytes(value, "cache_size")
    if bound.relative or not math.isfinite(bound.value) or not 1 <= bound.value <= _LARGEST_CACHE:
        raise UsageError(f"cache_size: {quoted(value)} is no size of a cache", "write it like 512MB")
    return int(bound.value)


def _shown(value: Any) -> str:
    return quoted(value if isinstance(value, str) else repr(value)[:_LONGEST])


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "threads": _check_threads,
    "runtime": _check_runtime,
    "board": _check_board,
    "cache_size": _check_cache,
}

"""The device book: TOML files that say where the user's devices are and what each needs.

    [devices.rpi4]
    address = "ssh://pi@raspberrypi.local"      # see `settings.parse_address`
    python = "/home/pi/edgeprune/bin/python"    # the other settings: see `settings.SETTINGS`

One file in the user's configuration folder (EDGEPRUNE_CONFIG_DIR, else where the system keeps such), and one in the
working folder, edgeprune-devices.toml, whose entries win. They may be edited by hand: what is written here keeps
comments and order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import tomlkit

from edgeprune.core.errors import StorageError, UsageError, did_you_mean
from edgeprune.core.reading import MAX_TOML_BYTES, Source
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.names.settings import check_name, check_text, quoted, to_spec

PROJECT_FILE = "edgeprune-devices.toml"


@dataclass(frozen=True, slots=True)
class Entry:
    """A device of the book, with the defaults of its board, and the file that it stands in."""

    spec: DeviceSpec
    file: Path


def user_file() -> Path:
    """The user's own book."""
    return Path(os.environ.get("EDGEPRUNE_CONFIG_DIR") or platformdirs.user_config_dir("edgeprune")) / "devices.toml"


def project_file() -> Path:
    """The book of the working folder."""
    return Path.cwd() / PROJECT_FILE


def entries() -> dict[str, Entry]:
    """Every device of both books by name. Raises UsageError for a file that is no such book."""
    found = {}
    for file in (user_file(), project_file()):
        for name, settings in _read(file).items():
            found[name] = Entry(_spec_of(name, settings, file), file)
    return found


def add(name: str, settings: Mapping[str, str | int], *, project: bool = False, replace: bool = False) -> Entry:
    """Write a device into the user's book, or into the project's.

    Raises UsageError where a setting is wrong or the name is taken (unless `replace`), StorageError where the file
    cannot be written.
    """
    file = project_file() if project else user_file()
    base = file.parent if project else Path.cwd()
    spec = to_spec(name, settings, base)
    plain = dict(settings)
    if not project:  # this book is read from everywhere
        plain |= {
            "address": _written(spec),
            **({"benchmark_model": spec.benchmark_model} if spec.benchmark_model else {}),
        }

    def change(devices: dict[str, Any]) -> None:
        if name in devices and not replace:
            raise UsageError(f"device '{name}' is in {file} already", "add --replace to write it anew")
        devices[name] = plain

    _edit(file, change)
    return Entry(spec, file)


def set_python(entry: Entry, python: str) -> None:
    """Keep the Python that was set up on a device. Raises UsageError where the device has gone from its file."""

    def change(devices: dict[str, Any]) -> None:
        _has(devices, entry.spec.name, entry.file)
        devices[entry.spec.name]["python"] = python

    check_text("python", python)
    _edit(entry.file, change)


def remove(name: str) -> Path:
    """Take a device out of the book it counts in; the file. Raises UsageError where it is in none."""
    check_name(name)
    files = [file for file in (project_file(), user_file()) if name in _read(file)]
    if not files:
        known = [*_read(user_file()), *_read(project_file())]
        raise UsageError(
            f"there is no device '{name}' to remove", did_you_mean(name, known) if known else "the book is empty"
        )

    def change(devices: dict[str, Any]) -> None:
        _has(devices, name, files[0])
        del devices[name]

    _edit(files[0], change)
    return files[0]


def _written(spec: DeviceSpec) -> str:
    return f"simulated://{spec.address}" if spec.kind == "simulated" else spec.address


def _spec_of(name: str, settings: Any, file: Path) -> DeviceSpec:
    try:
        if not isinstance(settings, dict):
            raise UsageError("it is no table of settings", f"write [devices.{name}] and address = ... below it")
        return to_spec(name, settings, file.parent)
    except UsageError as error:
        raise UsageError(f"{file}, device {quoted(name)}: {error.message}", error.hint or "mend that entry") from error


def _text(file: Path) -> str:
    source = _source(file)
    try:
        data = source.read_bytes(MAX_TOML_BYTES)
        with source.guarded():
            return data.decode()
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return ""
        raise


def _source(file: Path) -> Source:
    return Source(file, UsageError, "mend or remove that file", "the device book")


def _read(file: Path) -> dict[str, Any]:
    return _devices_of(_text(file), file)


def _devices_of(text: str, file: Path) -> dict[str, Any]:
    book = _source(file).parse_toml(text)
    for key in book:
        if key != "devices":
            raise UsageError(f"unknown key {quoted(key)} in {file}", did_you_mean(key, ["devices"]))
    devices = book.get("devices", {})
    if not isinstance(devices, dict):
        raise UsageError(f"devices in {file} is no table", "write [devices.NAME] and address = ... below it")
    return devices


def _has(devices: Mapping[str, Any], name: str, file: Path) -> None:
    if name not in devices:
        raise UsageError(f"device '{name}' has gone from {file} meanwhile", "type: edgeprune devices list")


def _edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply `change` to the devices of a book as it is now, keeping comments and order."""
    with _locked():
        text = _text(file)
        wanted = _devices_of(text, file)
        change(wanted)
        try:
            with _source(file).guarded():
                document = tomlkit.parse(text)
                change(document.setdefault("devices", tomlkit.table(is_super_table=True)))
                edited = tomlkit.dumps(document)
            kept = _devices_of(edited, file) == wanted
        except UsageError:
            kept = False
        if not kept:
            raise UsageError(f"{file} is written in a way that cannot be edited by program", "edit it by hand")
        _write(file, edited)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One edit of this user at a time, whichever file it changes."""
    lock = user_file().with_name(".devices.lock")
    with _storing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _storing(lock):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(file: Path, text: str) -> None:
    """Whole or not at all; for the user alone, or as readable as it was."""
    file = file.resolve()  # a link stays a link
    with _storing(file):
        for left in file.parent.glob(f".{file.name}.????????.tmp"):  # of edits that were killed: there is one at a time
            left.unlink(missing_ok=True)
        descriptor, temporary = tempfile.mkstemp(".tmp", f".{file.name}.", file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                if file.exists():
                    os.fchmod(stream.fileno(), stat.S_IMODE(file.stat().st_mode))
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _storing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {file}: {error.strerror}", "point EDGEPRUNE_CONFIG_DIR at a folder you may write"
        ) from error

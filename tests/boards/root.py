"""The root folder of the test board: the emulated Raspberry Pi's, with a shell on top. Built once, then kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from edgeprune.devices.emulator import setup

_VERSION = "1"
_PROGRAMS = "sh ls cat mkdir rm cp mv ln env echo test true false sleep head tail grep sed wc sha256sum date kill chmod"


def cache() -> Path:
    """EDGEPRUNE_TEST_BOARD, else a folder in the user's cache."""
    chosen = os.environ.get("EDGEPRUNE_TEST_BOARD")
    return Path(chosen) if chosen else platformdirs.user_cache_path("edgeprune") / "test-board"


def board_root() -> Path:
    """The finished root; built where it is not there. Raises DeviceError as the emulator's set-up does."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "complete").is_file() or (root / "complete").read_text() != _VERSION:
            shutil.rmtree(root, ignore_errors=True)
            _build(setup.install("rpi4", print), root)
            (root / "complete").write_text(_VERSION)
    return root


def _build(base: Path, root: Path) -> None:
    shutil.copytree(base, root, symlinks=True, copy_function=os.link)
    shutil.move(root / "proc", root / "fake-proc")  # the namespace mounts a real one, and these files over it
    for name in ("proc", "dev/shm", "tmp", "home/pi", "etc", "bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with _downloaded("busybox-static") as deb:
        subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)
    for name in _PROGRAMS.split():
        with contextlib.suppress(FileExistsError):
            (root / "bin" / name).symlink_to("busybox")
    with contextlib.suppress(FileExistsError):
        (root / "usr/bin/python3").symlink_to("python3.11")
    packages = root / "usr/local/lib/python3.11/dist-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "site.pth").write_text("/opt/site\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/home/pi:/bin/sh\n")


@contextlib.contextmanager
def _downloaded(package: str) -> Iterator[Path]:
    """An arm64 package of the archive that this machine uses."""
    with tempfile.TemporaryDirectory() as temporary:
        apt = Path(temporary)
        for each in ("lists/partial", "cache/archives/partial"):
            (apt / each).mkdir(parents=True)
        (apt / "status").touch()
        (apt / "sources.list").write_text(setup.sources())
        options = (
            *("APT::Architecture=arm64", "APT::Architectures=arm64", "APT::Sandbox::User=", "Debug::NoLocking=true"),
            *(f"Dir::Etc::sourcelist={apt}/sources.list", "Dir::Etc::sourceparts=/dev/null"),
            *(f"Dir::State={apt}", f"Dir::State::lists={apt}/lists", f"Dir::State::status={apt}/status"),
            *(f"Dir::Cache={apt}/cache", "Acquire::Languages=none", "Dir::Etc::preferencesparts=/dev/null"),
        )
        command = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
        subprocess.run([*command, "update"], check=True)
        subprocess.run([*command, "download", package], check=True, cwd=apt)
        yield next(apt.glob(f"{package}*.deb"))

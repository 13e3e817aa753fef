"""Setting up an emulated board, as a plain user: a small arm64 Debian with Python and the runtimes, in one folder.

Packages come from the Debian archive this machine uses, wheels from its package index. Beside the folder of each board
lies `common`, which holds the downloads unpacked; boards link to its files. Each is built under another name and then
renamed, so what is there is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from edgeprune.core.errors import DeviceError
from edgeprune.core.text import shorten
from edgeprune.devices.common import PINS, STEADY
from edgeprune.devices.emulator.boards import BOARDS, Board, BoardName

#: A set-up made by another version of this file is made anew.
_VERSION = 1
_RELEASE = "bookworm"
_PYTHON = "python3.11"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: Program to Debian package, of all that setting up needs.
_PROGRAMS = {"qemu-aarch64": "qemu-user", "gcc": "gcc", "apt-get": "apt", "dpkg-deb": "dpkg"}
_PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5"),
    *("libsqlite3-0", "libuuid1", "libcrypt1", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
)
_WHEELS = (
    *("numpy==2.2.6", *(f"{name}=={version}" for name, version in PINS.items())),
    *("flatbuffers==25.12.19", "protobuf==7.36.2", "typing-extensions==4.16.0"),
)
_GLIBC = ("2_17", "2_24", "2_26", "2_27", "2_28", "2_31", "2_34", "2_35")
#: Writes the bytecode of all that the probe imports, under the paths the guest sees: importing is then twice as fast.
_COMPILE = """
import ctypes, hashlib, importlib.metadata, mmap, os, platform, py_compile, subprocess, sys
import numpy, onnxruntime, ai_edge_litert.interpreter
for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.endswith(".py"):
        py_compile.compile(sys.argv[1] + source, dfile=source, doraise=True)
os.getppid()
"""
_NEEDED_BYTES = 700 << 20
_LONGEST_S = 1800
_STAMP = "complete.json"
_BUILDING = ".building-"


def home() -> Path:
    """The folder of all emulated boards: EDGEPRUNE_EMULATOR_DIR, else in the user's cache."""
    chosen = os.environ.get("EDGEPRUNE_EMULATOR_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("edgeprune") / "emulator"


def find(board: BoardName, folder: Path | None = None) -> Path:
    """The root folder of a board that is set up. Raises DeviceError where it is not."""
    where = (folder or home()).absolute() / board
    if not _complete(where):
        other = _version(where)
        why = "" if other in (None, _VERSION) else f" for this version: it has set-up {other}, and {_VERSION} is needed"
        raise DeviceError(
            f"emulated-{board} is not set up{why}", f"type: edgeprune devices setup emulated-{board}", retryable=False
        )
    return where / "root"


def contents(root: Path) -> str:
    """A short name for exactly the packages, wheels and board files below the `root` of a board."""
    return hashlib.sha256((root.parent / _STAMP).read_bytes()).hexdigest()[:12]


def install(board: BoardName, say: Callable[[str], None], folder: Path | None = None) -> Path:
    """Set up an emulated board in `folder` (None: see `home`); its root folder. At once where it is there already.

    `say` is told of each step. Raises DeviceError where a program is missing, this is not Debian, there is no room, or
    a download fails; an interrupted set-up starts over.
    """
    folder = (folder or home()).absolute()
    if not _complete(folder / board):
        require_programs()
        with _alone(folder):
            if not _complete(folder / "common"):
                _require_room(folder)
                with _built(folder / "common") as common:
                    _unpack_debian(common, say)
                    _unpack_wheels(common, say)
            if not _complete(folder / board):
                with _built(folder / board) as made:
                    _make_board(folder / "common", made, BOARDS[board], say)
                say(f"emulated-{board} is ready in {folder / board}")
    return folder / board / "root"


def require_programs() -> None:
    """Raises DeviceError unless this is Debian 12 with the programs needed and a qemu that can count instructions."""
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    release = _debian_release()
    if "apt" in missing or "dpkg" in missing or not release:
        raise DeviceError(
            "an emulated board is set up from a Debian archive, and this machine is not Debian",
            "use a machine or a container with Debian 12 (bookworm)",
            retryable=False,
        )
    if missing:
        raise DeviceError(
            f"an emulated board needs the Debian packages {' and '.join(missing)}",
            f"type: sudo apt-get install {' '.join(missing)}",
            retryable=False,
        )
    require_plugins()
    if release != _RELEASE:
        raise DeviceError(
            f"an emulated board is set up from Debian 12 (bookworm), and this machine is {release}",
            "use a machine or a container with Debian 12",
            retryable=False,
        )


def require_plugins() -> None:
    """Raises DeviceError where there is no qemu-aarch64, or one without plugins: only a plugin can count."""
    if "unknown option" in _ask_qemu("-plugin", "none.so", "none").stderr:
        raise DeviceError(
            "this machine's qemu-aarch64 has no plugins, so it cannot count instructions (as in Debian 13)",
            "use the qemu-user of Debian 12 (version 7.2)",
            retryable=False,
        )


def qemu_version() -> str:
    """qemu-aarch64's version. Raises DeviceError where it is not there."""
    found = re.search(r"version (\S+)", _ask_qemu("-version").stdout)
    return found[1] if found else "unknown"


def _ask_qemu(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["qemu-aarch64", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError("qemu-aarch64 did not answer in 30 s") from error
    except OSError as error:
        raise DeviceError(
            f"cannot start qemu-aarch64: {error.strerror}", "type: sudo apt-get install qemu-user", retryable=False
        ) from error


def guest_command(root: Path, arguments: Sequence[str], shm: Path) -> list[str]:
    """The command that runs the board's Python, counting into the file `shm`.

    The guest sees its own paths (`-L`), and its random numbers are seeded: nothing differs from start to start.
    """
    board = json.loads((root.parent / _STAMP).read_text())["cpu"]
    plugin = f"{root.parent / 'counter.so'},shm={shm}"
    program = shutil.which("qemu-aarch64") or "qemu-aarch64"
    qemu = [program, "-cpu", board, "-L", str(root), "-seed", "1", "-plugin", plugin, "-0", f"/usr/bin/{_PYTHON}"]
    # -S -P: neither this machine's own packages, which no file of the root hides, nor files beside the script.
    return [*qemu, str(root / "usr" / "bin" / _PYTHON), "-S", "-P", *arguments]


def guest_environment() -> dict[str, str]:
    """All that the guest's environment holds: nothing of ours, since even its length moves the guest's stack."""
    # Of STEADY, two matter more here: bytecode that the guest writes below /usr would be written on this machine (qemu
    # maps only what is there already), and the instructions of a thread for usage data would count too.
    return {**STEADY, "PYTHONHOME": "/usr", "PYTHONPATH": "/opt/site", "PYTHONNOUSERSITE": "1"}


def _complete(folder: Path) -> bool:
    return _version(folder) == _VERSION


def _version(folder: Path) -> int | None:
    """The version of the set-up in a folder; None where there is none that is whole."""
    try:
        found = json.loads((folder / _STAMP).read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _debian_release() -> str:
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return ""
    return facts.get("VERSION_CODENAME", "") if facts.get("ID") == "debian" else ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for others who set up here; what an interrupted set-up left is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in folder.glob(f"{_BUILDING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
    except OSError as error:
        raise DeviceError(
            f"cannot set up an emulated board in {folder}: {error.strerror or error}",
            "set EDGEPRUNE_EMULATOR_DIR to a folder with room that you may write",
        ) from error


def _require_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise DeviceError(
            f"an emulated board needs {_NEEDED_BYTES >> 20} MB in {folder}, and {free >> 20} MB are free",
            "free some space, or set EDGEPRUNE_EMULATOR_DIR to another folder",
        )


@contextmanager
def _built(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and goes when it does not."""
    building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=target.parent))
    try:
        yield building
        shutil.rmtree(target, ignore_errors=True)
        building.replace(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _stamp(folder: Path, **facts: object) -> None:
    (folder / _STAMP).write_text(json.dumps({"version": _VERSION, **facts}, indent=1, sort_keys=True))


def _unpack_debian(common: Path, say: Callable[[str], None]) -> None:
    """The arm64 packages below `common`/root, by an apt that keeps its state in `common`/apt."""
    apt, debs = common / "apt", common / "debs"
    for each in (apt / "lists" / "partial", apt / "cache" / "archives" / "partial", debs, common / "root"):
        each.mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(sources())
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    say("downloading arm64 packages from this machine's Debian archive")
    _run([*command, "update"], common, "cannot read the Debian archive")
    _run([*command, "download", *_PACKAGES], debs, "cannot download from the Debian archive")
    for deb in sorted(debs.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(deb), str(common / "root")], common, f"cannot unpack {deb.name}")
    shutil.rmtree(apt)


def sources() -> str:
    """The archive this machine uses, for arm64, as the text of a sources.list. Raises DeviceError where it knows none.

    Its lists need not be there: a fresh container has none.
    """
    asked = ["indextargets", "--no-release-info", "Created-By: Packages", "Component: main"]
    targets = _run(["apt-get", *asked, "--format", "$(REPO_URI) $(RELEASE)"], None, "cannot read apt's configuration")
    releases = {f"{_RELEASE}{suffix}" for suffix in ("", "-updates", "-security")}
    found = sorted({line for line in targets.splitlines() if line.split()[1:] and line.split()[1] in releases})
    if not found:
        raise DeviceError(
            f"apt on this machine knows no archive of Debian {_RELEASE}", "add one to /etc/apt/sources.list"
        )
    return "".join(f"deb [arch=arm64 signed-by={_KEYRING}] {line} main\n" for line in found)


def _unpack_wheels(common: Path, say: Callable[[str], None]) -> None:
    """The runtimes below `common`/root/opt/site, and the stamp with the exact versions of all."""
    say("downloading the runtimes' aarch64 wheels from this machine's package index")
    wheels = common / "wheels"
    platforms = [f"--platform=manylinux_{version}_aarch64" for version in _GLIBC]
    python = ["--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", f"--dest={wheels}"]
    everywhere = "--platform=manylinux2014_aarch64"
    _run([*command, *python, *platforms, everywhere, *_WHEELS], common, "cannot download the runtimes")
    names = sorted(path.name for path in (*wheels.iterdir(), *(common / "debs").iterdir()))
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(common / "root" / "opt" / "site")
    shutil.rmtree(wheels)
    shutil.rmtree(common / "debs")
    _stamp(common, files=names)


def _make_board(common: Path, made: Path, board: Board, say: Callable[[str], None]) -> None:
    """The board's own root: `common` by hard links, its /proc and /sys, the counter; its Python has run once."""
    say(f"making the {board.model}: it compiles its Python files once")
    root = made / "root"
    shutil.copytree(common / "root", root, symlinks=True, copy_function=os.link)
    board.write(root)
    files = json.loads((common / _STAMP).read_text())["files"]
    source = Path(__file__).with_name("counter.c")
    compile_ = ["gcc", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-o", str(made / "counter.so"), str(source)]
    _run(compile_, made, "cannot compile the instruction counter")
    _stamp(made, cpu=board.cpu, model=board.model, files=files)
    command = guest_command(root, ["-c", _COMPILE, str(root)], made / "count")
    _run(command, root, "the emulated Python does not start", guest_environment())
    if not int.from_bytes((made / "count").read_bytes()[:8], "little"):
        raise DeviceError("this machine's qemu-aarch64 did not count instructions", "use qemu-user 7.2 of Debian 12")
    (made / "count").unlink()


def _run(command: Sequence[str], cwd: Path | None, failure: str, env: dict[str, str] | None = None) -> str:
    """What the command printed. Raises DeviceError that starts with `failure` and ends with the command's last line."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{failure}: {command[0]} did not end in {_LONGEST_S} s") from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = shorten(said[-1], 300) if said else f"{command[0]} ended with code {done.returncode}"
        raise DeviceError(f"{failure}: {reason}", "look into it, then type the same again")
    return done.stdout

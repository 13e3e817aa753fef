"""Boards for tests: a real sshd, of a plain user or root, whose sessions land on this machine or in an aarch64 root.

Fixtures; `tests/conftest.py` imports them. `host_board` is this machine (fast: for faults of the link), `arm_board` a
busybox userland with the Python and the runtimes of a Raspberry Pi, every program of it emulated.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from boards.relay import Relay, relaying
from boards.root import board_root
from needs import absent, missing

from edgeprune.core.session import DeviceSpec
from edgeprune.devices.ssh.openssh import CONFIG_VARIABLE

#: What the fixtures need; a test that uses one is marked with `needs(*...)` of them.
HOST_PROGRAMS = ("ssh", "sshd", "ssh-keygen")
ARM_PROGRAMS = (*HOST_PROGRAMS, "qemu-aarch64", "qemu-aarch64-static", "gcc", "unshare", "nsenter")

_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {keys}/host
PidFile none
AuthorizedKeysFile {keys}/client.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
MaxStartups 100
MaxSessions 100
UseDNS no
LogLevel ERROR
{force}
"""
_CLIENT = """
Host *
 HostKeyAlias test-board
 IdentityFile {folder}/client
 IdentitiesOnly yes
 IdentityAgent none
 UserKnownHostsFile {folder}/known_hosts
 GlobalKnownHostsFile /dev/null
"""
#: The board's own process numbers, files and devices. Its first process only reaps; qemu as the first would hang.
_NAMESPACE = r"""
set -e
mount --bind "$1" "$1"
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
handler=/usr/libexec/qemu-binfmt/aarch64-binfmt-P
printf '%s' ":qemu-aarch64:M::$magic:$mask:$handler:OPF" > /proc/sys/fs/binfmt_misc/register
mount -t proc proc "$1/proc"
for name in cpuinfo meminfo; do mount --bind "$1/fake-proc/$name" "$1/proc/$name"; done
for name in null zero urandom random; do touch "$1/dev/$name"; mount --bind "/dev/$name" "$1/dev/$name"; done
mount -t tmpfs tmpfs "$1/dev/shm"
mkdir -p "$1/small"
mount -t tmpfs -o size=1m tmpfs "$1/small"
echo ready
while :; do sleep 1000 & wait $!; done
"""
_FORCE = """#!/bin/sh
cd /
exec nsenter --target {pid} --user --mount --pid --preserve-credentials -- /usr/sbin/chroot {root} /bin/busybox env -i \
HOME=/home/pi USER=pi PATH=/usr/bin:/bin LANG=C.UTF-8 QEMU_CPU=cortex-a72 /bin/sh -c "cd; $SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Board:
    """A running test board."""

    port: int
    #: With the keys, known_hosts and the client's configuration.
    keys: Path
    #: Where the board's / is on this machine.
    root: Path
    #: The folder that sessions' folders are made in, as the board names it.
    home: Path
    python: str

    def spec(self, relay: Relay | None = None, *, folder: str = "", **settings: object) -> DeviceSpec:
        """The board as a device, through a relay, with a folder of its own."""
        port = relay.port if relay else self.port
        address = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
        where = folder or str(self.home / uuid.uuid4().hex)
        return DeviceSpec("board", "ssh", address, python=self.python, folder=where, **settings)  # type: ignore[arg-type]

    def path(self, remote: str) -> Path:
        """A file of the board, seen from here."""
        return self.root / remote.lstrip("/")


def processes(text: str) -> list[int]:
    """Processes of the boards, by their numbers here, with an argument that holds `text`."""
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (each / "cmdline").read_bytes().split(b"\0") if each.name.isdigit() else [b""]
            if words[0] != b"ssh" and any(text.encode() in word for word in words):
                found.append(int(each.name))
    return found


@contextlib.contextmanager
def made_keys(keys: Path) -> Iterator[Path]:
    """Keys of boards and user in one folder; ssh reads the configuration there, in place of the user's own."""
    for name in ("host", "client"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgeprune test", "-f", str(keys / name)]
        subprocess.run(command, check=True)
    (keys / "config").write_text(_CLIENT.format(folder=keys))
    (keys / "known_hosts").write_text(f"test-board {(keys / 'host.pub').read_text()}")
    before = os.environ.get(CONFIG_VARIABLE)
    os.environ[CONFIG_VARIABLE] = str(keys / "config")
    yield keys
    os.environ.pop(CONFIG_VARIABLE) if before is None else os.environ.update({CONFIG_VARIABLE: before})


@contextlib.contextmanager
def this_machine(keys: Path, folder: Path, home: Path) -> Iterator[Board]:
    """This machine as a board, with this Python; `folder` is sshd's own."""
    with _sshd(keys, folder) as port:
        yield Board(port, keys, Path("/"), home, sys.executable)


@pytest.fixture(scope="session")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """See `made_keys`."""
    _skip_without(HOST_PROGRAMS)
    with made_keys(tmp_path_factory.mktemp("ssh-keys")) as keys:
        yield keys


@pytest.fixture(scope="session")
def host_board(ssh_keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """See `this_machine`."""
    with this_machine(ssh_keys, tmp_path_factory.mktemp("host-board"), tmp_path_factory.mktemp("host-home")) as board:
        yield board


@pytest.fixture(scope="session")
def arm_board(ssh_keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """An emulated aarch64 userland as a board."""
    _skip_without(ARM_PROGRAMS)
    folder, root = tmp_path_factory.mktemp("arm-board"), board_root()
    with _namespace(root) as pid:
        force = folder / "force.sh"
        force.write_text(_FORCE.format(pid=pid, root=root))
        force.chmod(0o755)
        with _sshd(ssh_keys, folder, f"ForceCommand {force}") as port:
            yield Board(port, ssh_keys, root, Path("/home/pi"), "")


@pytest.fixture
def relay(host_board: Board) -> Iterator[Relay]:
    """A bad link to `host_board`."""
    with relaying(host_board.port) as running:
        yield running


def _skip_without(programs: tuple[str, ...]) -> None:
    if gone := missing(*programs):
        absent(f"needs the system program {', '.join(gone)}")


@contextlib.contextmanager
def _sshd(keys: Path, folder: Path, force: str = "") -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (folder / "sshd_config").write_text(_SSHD.format(port=port, keys=keys, force=force))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd drops its privileges
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_for(port, process, folder / "log")
            yield port
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"sshd did not start: {log.read_text()}")


@contextlib.contextmanager
def _namespace(root: Path) -> Iterator[int]:
    """The board's processes live in it; the number, here, of the first of them."""
    options = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
    command = ["unshare", *options, "bash", "-c", _NAMESPACE, "board", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if process.stdout.readline() != b"ready\n":
                absent(f"needs user namespaces: {process.stderr.read().decode(errors='replace').strip()}")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield int(children[0])
        finally:
            process.kill()

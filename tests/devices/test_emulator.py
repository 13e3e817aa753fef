from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from needs import needs

from edgeprune.core.errors import DeviceError
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.emulator import setup
from edgeprune.devices.emulator.boards import BOARDS
from edgeprune.devices.emulator.session import EmulatedSession

RPI4 = DeviceSpec("emulated-rpi4", "emulated", board="emulated-rpi4")
NEEDED = ("qemu-aarch64", "gcc", "apt-get", "dpkg-deb")


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def only_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A PATH that holds just `names`, as on a machine where nothing else is installed."""
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or "/nowhere")
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def test_not_set_up_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRUNE_EMULATOR_DIR", str(tmp_path))
    with pytest.raises(DeviceError, match="not set up") as caught:
        EmulatedSession(RPI4)
    assert caught.value.hint == "type: edgeprune devices setup emulated-rpi4"


def test_an_unknown_board_is_an_error() -> None:
    with pytest.raises(DeviceError, match="no board 'rpi5'"):
        EmulatedSession(DeviceSpec("emulated-rpi5", "emulated"))


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"version": 0}', "{}"])
def test_a_set_up_of_another_version_or_a_broken_one_is_none(tmp_path: Path, stamp: str) -> None:
    (tmp_path / "rpi4").mkdir()
    (tmp_path / "rpi4" / "complete.json").write_text(stamp)
    with pytest.raises(DeviceError, match="not set up"):
        setup.find("rpi4", tmp_path)


def test_a_set_up_of_another_version_is_told_from_none(tmp_path: Path) -> None:
    (tmp_path / "rpi4").mkdir()
    (tmp_path / "rpi4" / "complete.json").write_text('{"version": 99}')
    with pytest.raises(DeviceError, match="not set up for this version: it has set-up 99, and 1 is needed"):
        setup.find("rpi4", tmp_path)


@needs(*NEEDED)
def test_missing_programs_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bin_folder: Path
) -> None:
    only_programs(bin_folder, monkeypatch, "apt-get", "dpkg-deb")
    with pytest.raises(DeviceError) as caught:
        setup.install("rpi4", print, tmp_path / "emulator")
    assert caught.value.hint == "type: sudo apt-get install qemu-user gcc"
    assert not (tmp_path / "emulator").exists()


def test_another_system_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bin_folder: Path) -> None:
    only_programs(bin_folder, monkeypatch)
    with pytest.raises(DeviceError, match="not Debian"):
        setup.install("rpi4", print, tmp_path / "emulator")


@needs(*NEEDED)
def test_a_qemu_without_plugins_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bin_folder: Path) -> None:
    # What qemu-user 10 of Debian 13 says.
    program(bin_folder, "qemu-aarch64", "echo \"qemu: unknown option 'plugin'\" >&2; exit 1")
    only_programs(bin_folder, monkeypatch, *NEEDED[1:])
    with pytest.raises(DeviceError, match="has no plugins") as caught:
        setup.install("rpi4", print, tmp_path / "emulator")
    assert not caught.value.retryable


def test_a_qemu_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: object) -> None:
        assert options["stdin"] == subprocess.DEVNULL
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", hang)
    for ask in (setup.require_plugins, setup.qemu_version):
        with pytest.raises(DeviceError, match="did not answer"):
            ask()
    with pytest.raises(DeviceError, match="cannot read apt's configuration: apt-get did not end"):
        setup.sources()


@needs(*NEEDED)
def test_an_interrupted_set_up_leaves_nothing_and_starts_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bin_folder: Path
) -> None:
    home = tmp_path / "emulator"
    (home / f"{setup._BUILDING}killed").mkdir(parents=True)
    real = shutil.which("apt-get")
    program(
        bin_folder,
        "apt-get",
        f'case "$*" in *indextargets*) exec {real} "$@";; *) echo "E: cut off" >&2; exit 100;; esac',
    )
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    for _ in range(2):
        with pytest.raises(DeviceError, match="Debian archive: E: cut off"):
            setup.install("rpi4", print, home)
        assert [path.name for path in home.iterdir()] == ["lock"]


def test_no_room_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup, "require_programs", lambda: None)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1 << 20))  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match=r"700 MB .* and 1 MB are free"):
        setup.install("rpi4", print, tmp_path)


def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup, "require_programs", lambda: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="Not a directory") as caught:
        setup.install("rpi4", print, tmp_path / "file" / "emulator")
    assert "EDGEPRUNE_EMULATOR_DIR" in caught.value.hint


@needs(*NEEDED)
def test_setting_up_again_is_at_once_and_quiet() -> None:
    said: list[str] = []
    first = setup.install("rpi4", said.append)
    said.clear()
    assert setup.install("rpi4", said.append) == first == setup.find("rpi4")
    assert not said


@needs(*NEEDED)
@pytest.mark.parametrize("board", ["rpi3", "rpi4"])
def test_the_guest_is_the_board_and_sees_its_own_files_only(board: str, tmp_path: Path) -> None:
    root = setup.install(board, print)  # type: ignore[arg-type]
    look = (
        "import os, platform, sys, onnxruntime, ai_edge_litert.interpreter; assert os.getppid(); "
        "print(platform.machine(), open('/proc/cpuinfo').read().count('processor'), os.cpu_count());"
        "print(open('/proc/device-tree/model').read().strip(chr(0))); print(sys.path); print(onnxruntime.__file__)"
    )
    command = setup.guest_command(root, ["-c", look], tmp_path / "count")
    done = subprocess.run(
        command, env=setup.guest_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    facts, model, path, module = done.stdout.splitlines()
    assert facts == "aarch64 4 4"
    assert model == BOARDS[board].model  # type: ignore[index]
    assert "dist-packages" not in path
    assert module == "/opt/site/onnxruntime/__init__.py"
    assert int.from_bytes((tmp_path / "count").read_bytes()[:8], "little") > 1_000_000


@needs(*NEEDED)
def test_facts_name_what_is_emulated_and_by_what() -> None:
    setup.install("rpi4", print)
    with EmulatedSession(RPI4) as session:
        facts = session.facts()
    assert facts["emulated"] is True
    assert (facts["machine"], facts["core"], facts["kind"]) == ("aarch64", "cortex-a72", "emulated")
    assert facts["qemu"][0].isdigit()
    assert len(facts["packages"]) == 12

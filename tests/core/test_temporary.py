"""Temporary folders: of the living they stay, of the dead they go, and nobody else's is touched."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import edgeprune
from edgeprune.core.session import DeviceSpec
from edgeprune.core.temporary import LONG, SHORT, TemporaryFolder, sweep, temporary_folder
from edgeprune.devices import open_session

MAKE = """
import sys
from edgeprune.core.temporary import *
made = [TemporaryFolder(), TemporaryFolder(SHORT)]
(made[0].path / "inside").mkdir()
(made[0].path / "inside" / "file").write_text("x")
(made[0].path / "link").symlink_to("/")
print(*[each.path for each in made], flush=True)
sys.stdin.read()
for each in made:
    each.remove()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary ones, in place of /tmp."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_folders_of_the_living_stay_and_of_the_killed_go(here: Path) -> None:
    command = [sys.executable, "-c", MAKE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        made = [Path(each) for each in maker.stdout.readline().split()]
        assert [each.name.startswith(first) for each, first in zip(made, (LONG, SHORT), strict=True)] == [True, True]
        assert not set(sweep()) & set(made)
        assert all(each.is_dir() for each in made)
        maker.kill()
        maker.wait()
        assert set(made) <= set(sweep())
    assert not any(each.exists() for each in made)
    assert list(here.iterdir()) == []
    assert Path("/").exists()


def test_a_folder_goes_with_its_block(here: Path) -> None:
    with temporary_folder() as folder:
        assert folder.parent == here
        (folder / "file").touch()
        assert folder not in sweep()
    assert list(here.iterdir()) == []


def test_what_is_not_certainly_ours_stays(here: Path) -> None:
    (here / f"{LONG}no-lock").mkdir()
    (here / f"{LONG}file").touch()
    for name, machine in ((f"{LONG}elsewhere", "another-machine"), ("theirs-x", platform.node())):
        (here / name).mkdir()
        (here / name / ".lock").write_text(machine)
    (here / f"{LONG}link").symlink_to(here / "theirs-x")
    (here / f".{LONG}just-begun").mkdir()
    before = sorted(here.iterdir())
    assert not [each for each in sweep() if each.parent == here]
    assert sorted(here.iterdir()) == before
    os.utime(here / f".{LONG}just-begun", (time.time() - 60,) * 2)
    assert here / f".{LONG}just-begun" in sweep()


def test_no_part_of_the_product_makes_temporary_folders_in_another_way() -> None:
    package = Path(edgeprune.__file__).parent
    others = {"core/temporary.py", "devices/emulator/setup.py"}  # the set-up has a lock of its own
    found = {
        str(each.relative_to(package))
        for each in package.rglob("*.py")
        if re.search(r"\b(mkdtemp|TemporaryDirectory)\b", each.read_text(encoding="utf-8"))
    }
    assert found == others


def test_opening_a_device_says_what_it_removed(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = here / f"{LONG}gone"
    gone.mkdir()
    (gone / ".lock").write_text(platform.node())
    with caplog.at_level("INFO", "edgeprune"), open_session(DeviceSpec("local", "local")):
        pass
    assert f"removed what killed processes left: {gone}" in caplog.text
    assert list(here.iterdir()) == []


def test_a_session_that_was_not_closed_can_be_swept_when_its_process_is_gone(here: Path) -> None:
    folder = TemporaryFolder()
    assert folder.path not in sweep()
    folder._lock.release()  # as the system does when the process ends
    assert folder.path in sweep()
    folder.remove()

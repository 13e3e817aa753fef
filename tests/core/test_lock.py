"""One folder, one owner: with real processes, some of them killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeprune.core import lock
from edgeprune.core.errors import UsageError
from edgeprune.core.lock import LOCK, OWNER, FolderLock, discard_empty, holder
from edgeprune.core.processes import this_host

Hold = Callable[..., "subprocess.Popen[str]"]
#: Takes a folder, says so, and keeps it until its stdin ends.
HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from edgeprune.core.lock import FolderLock
held = FolderLock(Path(sys.argv[1]), "it")
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)
if "spawn" in sys.argv:
    subprocess.Popen(["sleep", "600"], close_fds=False, stdout=subprocess.DEVNULL)
print("held", flush=True)
sys.stdin.read()
held.close()
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    with contextlib.ExitStack() as stack:

        def begin(*how: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", HOLD, str(tmp_path), *how]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            stack.enter_context(process)
            stack.callback(_end_group, process.pid)
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            return process

        yield begin


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def test_a_second_process_is_refused_and_told_who_has_it(hold: Hold, tmp_path: Path) -> None:
    owner = hold()
    with pytest.raises(UsageError, match=rf"run 'one' is in use by process {owner.pid} on .*, since 20") as caught:
        FolderLock(tmp_path, "run 'one'")
    assert caught.value.exit_code == 2
    assert f"kill {owner.pid}" in caught.value.hint
    owner.communicate()
    FolderLock(tmp_path, "run 'one'").close()
    assert not (tmp_path / OWNER).exists()


def test_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with contextlib.closing(FolderLock(tmp_path, "it")), pytest.raises(UsageError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path, "it")


@pytest.mark.parametrize("how", ["", "fork", "spawn"])
def test_what_a_killed_owner_held_is_taken_over_though_its_children_live(hold: Hold, tmp_path: Path, how: str) -> None:
    owner = hold(how)
    owner.kill()
    owner.wait()
    with contextlib.closing(FolderLock(tmp_path, "it")) as mine:
        assert mine.left_by is not None
        assert mine.left_by.pid == owner.pid
    with contextlib.closing(FolderLock(tmp_path, "it")) as again:
        assert again.left_by is None


def test_a_note_of_another_machine_counts_while_it_is_touched(tmp_path: Path) -> None:
    note = tmp_path / OWNER
    note.write_text(json.dumps({"host": "elsewhere-1", "node": "elsewhere", "pid": os.getpid(), "since": "2026-01-01"}))
    with pytest.raises(UsageError, match=f"process {os.getpid()} on elsewhere") as caught:
        FolderLock(tmp_path, "it")
    assert "stop it on elsewhere; if it is gone, try again in 120 s" in caught.value.hint
    os.utime(note, (time.time() - 200, time.time() - 200))
    with contextlib.closing(FolderLock(tmp_path, "it")) as mine:
        assert mine.left_by is not None
        assert mine.left_by.node == "elsewhere"


def test_an_owner_touches_its_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_TOUCH_S", 0.02)
    with contextlib.closing(FolderLock(tmp_path, "it")):
        os.utime(tmp_path / OWNER, (1, 1))
        until = time.monotonic() + 20
        while (tmp_path / OWNER).stat().st_mtime < 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / OWNER).stat().st_mtime > 2


@pytest.mark.parametrize("note", ["", "[]", '{"pid": "x"}', "[" * 5000, '{"host": 1, "node": 2, "pid": 1e999}'])
def test_a_damaged_note_keeps_nobody_out(tmp_path: Path, note: str) -> None:
    (tmp_path / OWNER).write_text(note)
    FolderLock(tmp_path, "it").close()


def test_who_gave_a_removed_folder_back_leaves_the_next_ones_note(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    first = FolderLock(folder, "it")
    for name in (LOCK, OWNER):
        (folder / name).unlink()
    (folder / OWNER).write_text(json.dumps({"host": this_host(), "node": "n", "pid": 1, "since": "s"}))
    first.close()
    assert (folder / OWNER).exists()


def test_an_empty_folder_goes_and_one_with_files_stays(tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
        FolderLock(tmp_path / name, "it").close()
    (tmp_path / "full" / "bench.json").touch()
    for name in ("empty", "full", "none"):
        discard_empty(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["full"]


def test_the_holder_is_told_and_not_disturbed(hold: Hold, tmp_path: Path) -> None:
    assert holder(tmp_path) == ""
    process = hold()
    before = (tmp_path / OWNER).read_bytes()
    assert holder(tmp_path).startswith(f"process {process.pid} on ")
    (tmp_path / OWNER).write_text("damaged")
    assert holder(tmp_path) == "another process"
    (tmp_path / OWNER).write_bytes(before)
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while holder(tmp_path) and time.monotonic() < until:
        time.sleep(0.02)
    assert holder(tmp_path) == ""
    assert (tmp_path / OWNER).read_bytes() == before


def test_a_holder_on_another_machine_is_believed_while_it_touches_its_note(tmp_path: Path) -> None:
    note = tmp_path / OWNER
    note.write_text(json.dumps({"host": "elsewhere", "node": "elsewhere", "pid": 1, "since": "noon"}))
    assert holder(tmp_path) == "process 1 on elsewhere, since noon"
    os.utime(note, (time.time() - 500,) * 2)
    assert holder(tmp_path) == ""

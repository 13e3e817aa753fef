"""What every implementation of `Session` must do; a new transport adds a fixture parameter."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards.board import ARM_PROGRAMS, HOST_PROGRAMS
from needs import needs

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.session import DeviceSpec, Session
from edgeprune.devices import find_device, open_session
from edgeprune.devices.emulator.setup import install

SCRIPT = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "write":
        open(request["path"], "w").write("made there")
    facts = {"exists": os.path.exists(request.get("path", "")), "seed": os.environ.get("PYTHONHASHSEED")}
    print(json.dumps({"ok": True, "n": request["n"], **facts}), flush=True)
"""


@pytest.fixture(
    params=[
        "local",
        pytest.param("host_board", marks=needs(*HOST_PROGRAMS)),
        pytest.param("arm_board", marks=needs(*ARM_PROGRAMS)),
        pytest.param("emulated-rpi4", marks=needs("qemu-aarch64", "gcc")),
        "simulated",
    ]
)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    if request.param.endswith("_board"):
        spec = request.getfixturevalue(request.param).spec()
    elif request.param == "simulated":
        (tmp_path / "device.toml").write_text("seed = 1\n[latency]\nbase_s = 1e-3\n")
        spec = find_device(f"simulated://{tmp_path / 'device.toml'}")
    else:
        if request.param != "local":
            install("rpi4", print)
        spec = find_device(request.param)
    with contextlib.closing(open_session(spec)) as opened:
        yield opened


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


class TestSession:
    def test_spec_and_stable_facts(self, session: Session) -> None:
        assert isinstance(session.spec, DeviceSpec)
        assert session.facts()["device"] == session.spec.name
        assert dict(session.facts()) == dict(session.facts())

    def test_push_names_by_content(self, session: Session, tmp_path: Path) -> None:
        one, same, other = tmp_path / "one.bin", tmp_path / "same.bin", tmp_path / "other.bin"
        one.write_bytes(b"1")
        same.write_bytes(b"1")
        other.write_bytes(b"2")
        assert session.push(one) == session.push(same) != session.push(other)
        assert hashlib.sha256(b"1").hexdigest() in session.push(one)

    def test_push_after_a_change_is_another_file(self, session: Session, tmp_path: Path) -> None:
        file, back = tmp_path / "model.onnx", tmp_path / "back"
        file.write_bytes(b"old")
        first = session.push(file)
        file.write_bytes(b"new")
        assert session.push(file) != first
        session.pull(first, back)
        assert back.read_bytes() == b"old"

    def test_pull_gives_back_every_byte(self, session: Session, tmp_path: Path) -> None:
        file, back = tmp_path / "file with spaces é.bin", tmp_path / "back"
        file.write_bytes(bytes(range(256)) * 1000)
        session.pull(session.push(file), back)
        assert back.read_bytes() == file.read_bytes()

    def test_missing_files_are_device_errors(self, session: Session, tmp_path: Path) -> None:
        with pytest.raises(DeviceError):
            session.push(tmp_path / "missing")
        with pytest.raises(DeviceError):
            session.pull(session.scratch("missing"), tmp_path / "back")

    def test_remove_and_remove_again(self, session: Session, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"x")
        remote = session.push(file)
        session.remove(remote)
        session.remove(remote)
        with pytest.raises(DeviceError):
            session.pull(remote, tmp_path / "back")

    def test_start_write_pull(self, session: Session, script: Path, tmp_path: Path) -> None:
        channel = session.start(script)
        there = session.scratch("made.txt")
        assert channel.request({"op": "write", "path": there}, Deadline.after(20))["exists"]
        session.pull(there, tmp_path / "made.txt")
        assert (tmp_path / "made.txt").read_text() == "made there"
        channel.close()

    def test_processes_start_alike(self, session: Session, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONHASHSEED", "77")
        monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
        channel = session.start(script)
        assert channel.request({"op": "look"}, Deadline.after(20))["seed"] == "0"
        channel.close()

    def test_several_channels_at_once(self, session: Session, script: Path) -> None:
        channels = [session.start(script) for _ in range(2)]
        for channel in (*channels, *reversed(channels)):
            assert channel.request({"op": "look"}, Deadline.after(20))["ok"]

    def test_a_scratch_name_is_no_path(self, session: Session) -> None:
        for name in ("../x", "/etc/x", "", "..", "a/b"):
            with pytest.raises(ValueError, match="plain file name"):
                session.scratch(name)

    def test_close_ends_channels_and_may_be_called_twice(self, session: Session, script: Path) -> None:
        channel = session.start(script)
        channel.request({"op": "look"}, Deadline.after(20))
        session.close()
        session.close()
        with pytest.raises(DeviceError):
            channel.request({"op": "look"}, Deadline.after(20))

"""The SSH transport against a real sshd: what a user meets when a board is away, strange, full, busy or rebooted."""

from __future__ import annotations

import ast
import base64
import errno
import getpass
import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from boards.board import ARM_PROGRAMS, HOST_PROGRAMS, Board, processes
from boards.relay import Fault, Relay
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needs

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.session import DeviceSpec
from edgeprune.devices import ChannelError
from edgeprune.devices.ssh import keeper
from edgeprune.devices.ssh.openssh import (
    CONFIG_VARIABLE,
    Address,
    SshChannel,
    explain,
    quote,
    remote_command,
    ssh_command,
    stream,
)
from edgeprune.devices.ssh.session import SshSession, setup_board, setup_commands

PROBE = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "hang":
        time.sleep(600)
    if request["op"] == "spin":
        while True: pass
    if request["op"] == "kill":
        os.kill(os.getpid(), 9)
    if request["op"] == "exit":
        sys.exit("out of ideas")
    print(json.dumps({"ok": True, "n": request["n"], "pid": os.getpid()}), flush=True)
"""
pytestmark = needs(*HOST_PROGRAMS)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe.py"
    path.write_text(PROBE)
    return path


@pytest.fixture
def config(host_board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Replaces words of ssh's configuration for one test."""

    def change(old: str, new: str) -> None:
        path = tmp_path / "ssh_config"
        path.write_text((host_board.keys / "config").read_text().replace(old, new))
        monkeypatch.setenv(CONFIG_VARIABLE, str(path))

    return change


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.onnx"
    path.write_bytes(os.urandom(600_000))
    return path


def opened(board: Board, relay: Relay | None = None, **settings: float) -> SshSession:
    return SshSession(board.spec(relay), patience_s=settings.get("patience_s", 20), heartbeat_s=30)


def wrong_files(session: SshSession, board: Board) -> list[str]:
    """Models whose content is not what their name says."""
    kept = board.path(session.facts()["models"])
    finals = [each for each in kept.iterdir() if not each.name.startswith(".")]
    return [each.name for each in finals if hashlib.sha256(each.read_bytes()).hexdigest() != each.name[:64]]


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


class TestOpening:
    def test_an_unknown_host_key_stops(self, host_board: Board, config: Callable[[str, str], None]) -> None:
        config(str(host_board.keys / "known_hosts"), "/dev/null")
        with pytest.raises(
            DeviceError, match=r"key of board .* is not known.* connect once by hand: ssh -F .* -l"
        ) as caught:
            opened(host_board)
        assert not caught.value.retryable

    def test_a_changed_host_key_stops(
        self, host_board: Board, config: Callable[[str, str], None], tmp_path: Path
    ) -> None:
        other = (host_board.keys / "client.pub").read_text().split()[:2]
        (tmp_path / "known_hosts").write_text(f"test-board {' '.join(other)}\n")
        config(str(host_board.keys / "known_hosts"), str(tmp_path / "known_hosts"))
        with pytest.raises(DeviceError, match=r"has changed.*poses as the board; only if.*ssh-keygen -R") as caught:
            opened(host_board)
        assert not caught.value.retryable

    def test_a_refused_login_stops(self, host_board: Board, config: Callable[[str, str], None]) -> None:
        config(str(host_board.keys / "client"), str(host_board.keys / "host"))
        with pytest.raises(DeviceError, match=r"does not let us in: .*Permission denied.*ssh-copy-id") as caught:
            opened(host_board)
        assert not caught.value.retryable

    def test_nobody_listens(self, host_board: Board) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            spec = replace(host_board.spec(), address=f"ssh://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(DeviceError, match=r"cannot be reached: .*Connection refused"):
            SshSession(spec)

    def test_a_name_that_no_machine_has(self, host_board: Board) -> None:
        with pytest.raises(DeviceError, match=r"no machine is called nowhere\.invalid"):
            SshSession(replace(host_board.spec(), address="ssh://nowhere.invalid"))

    def test_a_link_that_stalls_at_once(self, host_board: Board, relay: Relay) -> None:
        relay.stalled = True
        start = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            opened(host_board, relay)
        assert time.monotonic() - start < 20
        assert "\n" not in str(caught.value)

    def test_no_python(self, host_board: Board) -> None:
        with pytest.raises(DeviceError, match=r"Python of board cannot be run.*--python"):
            SshSession(replace(host_board.spec(), python="/nowhere/python3"))

    def test_a_python_that_is_none(self, host_board: Board) -> None:
        with pytest.raises(DeviceError, match="board"):
            SshSession(replace(host_board.spec(), python="/bin/false"))

    def test_a_folder_that_cannot_be(self, host_board: Board, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ChannelError, match="board: Not a directory") as caught:
            SshSession(host_board.spec(folder=str(tmp_path / "file" / "folder")))
        assert not caught.value.retryable

    def test_a_folder_that_is_somebody_s_own(self, host_board: Board, tmp_path: Path) -> None:
        (tmp_path / "scratch").mkdir()
        with pytest.raises(ChannelError, match="not ours: give another --folder") as caught:
            SshSession(host_board.spec(folder=str(tmp_path)))
        assert not caught.value.retryable
        assert [each.name for each in tmp_path.iterdir()] == ["scratch"]

    def test_no_ssh(self, host_board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DeviceError, match=r"ssh is not installed.*apt-get install openssh-client"):
            SshSession(host_board.spec())

    def test_nothing_is_left_of_a_failed_opening(self, host_board: Board, tmp_path: Path) -> None:
        spec = replace(host_board.spec(folder="/proc/nothing"))
        with pytest.raises(DeviceError):
            SshSession(spec)
        assert eventually(lambda: not processes("/proc/nothing"))

    def test_a_profile_that_talks(self, host_board: Board, probe: Path, tmp_path: Path) -> None:
        """Lines before ours, ten megabytes of them: neither the keeper's answers nor the probe's are garbled."""
        noisy = tmp_path / "noisy python"
        talk = "yes 'Welcome to {\"ok\": true}!' | head -c 10000000; printf 'no end of line'; echo"
        noisy.write_text(f'#!/bin/sh\n[ "$4" ] && {talk}\nexec {shlex.quote(host_board.python)} "$@"\n')
        noisy.chmod(0o755)
        with SshSession(replace(host_board.spec(), python=str(noisy))) as session:
            assert session.facts()["machine"]


class TestTwoSessions:
    def test_the_second_waits_and_then_says_who_has_it(self, host_board: Board) -> None:
        spec = host_board.spec()
        with SshSession(spec):
            with pytest.raises(
                ChannelError, match=f"in use by {getpass.getuser()} on {socket.gethostname()}"
            ) as caught:
                SshSession(spec, patience_s=1)
            assert caught.value.kind == "busy"
            assert caught.value.retryable
        SshSession(spec, patience_s=10).close()

    def test_the_second_gets_it_when_the_first_is_done(self, host_board: Board) -> None:
        spec = host_board.spec()
        first = SshSession(spec)
        threading.Timer(1.0, first.close).start()
        SshSession(spec, patience_s=20).close()

    def test_a_session_that_was_cut_takes_its_folder_back(self, host_board: Board, relay: Relay, big: Path) -> None:
        """The board has not noticed yet, so the old keeper still holds the lock."""
        with opened(host_board, relay) as session:
            (old,) = processes(f"edgeprune-keeper-{session._link.token}")
            os.kill(old, signal.SIGSTOP)
            relay.cut()
            session.push(big)
            assert eventually(lambda: old not in processes("edgeprune-keeper"))


class TestFiles:
    def test_an_upload_that_is_cut_anywhere(self, host_board: Board, relay: Relay, big: Path) -> None:
        with opened(host_board, relay) as session:
            for after in (1, 5_000, 60_000, 150_000, 300_000, 500_000, 700_000, 790_000):
                big.write_bytes(os.urandom(600_000))
                relay.faults.append(Fault("reset", after))
                remote = session.push(big)
                assert host_board.path(remote).read_bytes() == big.read_bytes()
                assert not wrong_files(session, host_board)
            assert len(relay.fired) == 8

    def test_what_arrived_is_not_sent_again(self, host_board: Board, relay: Relay, tmp_path: Path) -> None:
        big = tmp_path / "big.onnx"
        big.write_bytes(os.urandom(4_000_000))
        with opened(host_board, relay) as session:
            for after in (1_000_000, 2_500_000, 4_000_000):
                relay.faults.append(Fault("reset", after - sum(fault.after for fault in relay.faults)))
            before = relay.passed
            session.push(big)
            assert len(relay.fired) == 3
            assert relay.passed - before < 1.5 * 4_000_000 * 4 / 3

    def test_a_cut_upload_that_nobody_goes_on_with(self, host_board: Board, relay: Relay, big: Path) -> None:
        spec = host_board.spec(relay)
        session = SshSession(spec, patience_s=0)
        models = host_board.path(session.facts()["models"])
        relay.faults.append(Fault("reset", 400_000))
        with pytest.raises(ChannelError) as caught:
            session.push(big)
        assert caught.value.kind == "lost"
        session.close()
        assert [each.name[-5:] for each in models.iterdir()] == [".part"]
        SshSession(spec, patience_s=20).close()
        assert not list(models.iterdir())

    def test_parts_from_before_a_crash_of_the_board(self, host_board: Board, big: Path) -> None:
        """The right size and the wrong bytes, as a power cut leaves them, under either name."""
        with opened(host_board) as session:
            digest = hashlib.sha256(big.read_bytes()).hexdigest()
            models = host_board.path(session.facts()["models"])
            (models / f".{digest}.onnx.part").write_bytes(bytes(100_000))
            assert host_board.path(session.push(big)).read_bytes() == big.read_bytes()
            other = hashlib.sha256(b"other").hexdigest()
            (models / f"{other}.bin").write_bytes(b"wrong")
            big.with_suffix(".bin").write_bytes(b"other")
            assert host_board.path(session.push(big.with_suffix(".bin"))).read_bytes() == b"other"

    def test_the_least_recently_used_go_first(self, host_board: Board, tmp_path: Path) -> None:
        spec = host_board.spec(cache_bytes=2500)
        files = [tmp_path / f"{index}.bin" for index in range(4)]
        for index, file in enumerate(files):
            file.write_bytes(bytes([index]) * 1000)
        with SshSession(replace(spec, cache_bytes=10_000)) as session:
            names = [Path(session.push(file)).name for file in files[:3]]
            models = host_board.path(session.facts()["models"])
            (models / "not ours").write_bytes(bytes(9000))
            for age, name in enumerate([names[1], names[0], names[2]]):
                os.utime(models / name, (1000 + age, 1000 + age))
        with SshSession(spec) as session:
            assert {each.name for each in models.iterdir()} == {names[0], names[2], "not ours"}
            session.push(files[0])  # used now, so the other one goes
            newest = Path(session.push(files[3])).name
            assert {each.name for each in models.iterdir()} == {names[0], newest, "not ours"}
            assert session.clean() == 0
        with SshSession(spec) as session:
            assert session.clean() == 2000
            assert [each.name for each in models.iterdir()] == ["not ours"]

    def test_only_files_of_the_session(self, host_board: Board, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.write_text("precious")
        with opened(host_board) as session:
            for path in (str(mine), session.scratch("x") + "/../../../mine", "", "/", session.facts()["models"]):
                with pytest.raises(DeviceError, match="not a file of this session"):
                    session.remove(path)
                with pytest.raises(DeviceError, match="not a file of this session"):
                    session.pull(path, tmp_path / "back")
        assert mine.exists()
        assert not (tmp_path / "back").exists()

    def test_names_no_shell_would_like(self, host_board: Board, tmp_path: Path) -> None:
        file = tmp_path / "a b;'\"$(touch pwned)`x`.onnx'; echo"
        file.write_bytes(b"x")
        with opened(host_board) as session:
            session.pull(session.push(file), tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == b"x"
            session.remove(session.scratch("$(touch pwned) 'x'"))

    def test_an_empty_file(self, host_board: Board, tmp_path: Path) -> None:
        (tmp_path / "empty").write_bytes(b"")
        with opened(host_board) as session:
            session.pull(session.push(tmp_path / "empty"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b""


class TestProbe:
    def test_a_killed_probe(self, host_board: Board, probe: Path) -> None:
        with opened(host_board) as session:
            for kill_from_outside in (False, True):
                channel = session.start(probe)
                pid = channel.request({"op": "x"}, Deadline.after(20))["pid"]
                if kill_from_outside:
                    os.kill(pid, signal.SIGKILL)
                with pytest.raises(ChannelError, match="out of memory") as caught:
                    channel.request({"op": "kill"}, Deadline.after(20))
                assert caught.value.kind == "killed"

    def test_a_probe_that_ends(self, host_board: Board, probe: Path) -> None:
        with opened(host_board) as session, pytest.raises(ChannelError, match=r"exit code 1.*out of ideas") as caught:
            session.start(probe).request({"op": "exit"}, Deadline.after(20))
        assert caught.value.kind == "crashed"

    @pytest.mark.parametrize("op", ["hang", "spin"])
    def test_a_probe_that_hangs_is_ended_there_too(self, host_board: Board, probe: Path, op: str) -> None:
        with opened(host_board) as session:
            channel = session.start(probe)
            channel.request({"op": "x"}, Deadline.after(20))
            with pytest.raises(ChannelError) as caught:
                channel.request({"op": op}, Deadline.after(0.5))
            assert caught.value.kind == "timeout"
            assert eventually(lambda: not processes(session._link.token + "-0"))

    def test_a_stall_in_the_middle_of_a_request(self, host_board: Board, relay: Relay, probe: Path) -> None:
        with opened(host_board, relay) as session:
            channel = session.start(probe)
            channel.request({"op": "x"}, Deadline.after(20))
            relay.stalled = True
            start = time.monotonic()
            with pytest.raises(ChannelError) as caught:
                channel.request({"op": "x"}, Deadline.after(1))
            assert caught.value.kind == "lost"
            assert time.monotonic() - start < 8
            relay.stalled = False
            assert session.start(probe).request({"op": "x"}, Deadline.after(20))["ok"]

    def test_a_cut_in_the_middle_of_a_request(self, host_board: Board, relay: Relay, probe: Path) -> None:
        with opened(host_board, relay) as session:
            channel = session.start(probe)
            channel.request({"op": "x"}, Deadline.after(20))
            threading.Timer(0.3, relay.cut).start()
            start = time.monotonic()
            with pytest.raises(ChannelError) as caught:
                channel.request({"op": "spin"}, Deadline.after(60))
            assert caught.value.kind == "lost"
            assert time.monotonic() - start < 10
            assert session.start(probe).request({"op": "x"}, Deadline.after(20))["ok"]
            assert not processes(f"{session._link.token}-0")

    def test_nothing_burns_the_board_when_we_are_gone(self, host_board: Board, relay: Relay, probe: Path) -> None:
        session = SshSession(host_board.spec(relay), patience_s=1, heartbeat_s=2)
        token = session._link.token
        channel = session.start(probe)
        channel.request({"op": "x"}, Deadline.after(20))
        threading.Timer(0.2, setattr, (relay, "stalled", True)).start()
        with pytest.raises(ChannelError):
            channel.request({"op": "spin"}, Deadline.after(0.5))
        assert eventually(lambda: not processes(token))
        relay.stalled = False
        session.close()

    def test_close_ends_a_busy_probe(self, host_board: Board, tmp_path: Path) -> None:
        busy = tmp_path / "busy.py"
        busy.write_text("while True: pass")
        with opened(host_board) as session:
            session.start(busy)
            mark = f"edgeprune-probe-{session._link.token}"
            assert eventually(lambda: bool(processes(mark)))
        assert eventually(lambda: not processes(session._link.token))

    def test_another_users_probe_is_let_alone(self, host_board: Board, probe: Path) -> None:
        with opened(host_board) as mine, opened(host_board) as other:
            channel = other.start(probe)
            channel.request({"op": "x"}, Deadline.after(20))
            mine._link.ask("kill", mark=f"edgeprune-probe-{other._link.token}-0")
            opened(host_board).close()
            assert channel.request({"op": "x"}, Deadline.after(20))["ok"]


class TestLink:
    def test_what_the_board_says_is_not_taken_for_ssh_s_words(self) -> None:
        """The marker came, so we were let in, whatever a login shell could not read."""
        for said, kept in (("echo mark; ", True), ("", False)):
            channel = SshChannel(
                "board",
                Address("host"),
                ["sh", "-c", f"{said}read _; echo 'bash: x: Permission denied' >&2; exit 255"],
                "mark",
            )
            with pytest.raises(ChannelError) as caught:
                channel.request({}, Deadline.after(20))
            assert (caught.value.kind, caught.value.retryable) == ("lost", kept)

    def test_a_last_line_without_an_end_is_heard(self) -> None:
        said: list[str] = []
        assert stream(["sh", "-c", "echo one; printf two"], Deadline.after(20), said.append) == 0
        assert said == ["one", "two"]

    def test_modules_at_home_are_not_imported(self, host_board: Board, tmp_path: Path) -> None:
        (tmp_path / "select.py").write_text("raise SystemExit('mine')")
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\ncd {shlex.quote(str(tmp_path))} && exec {shlex.quote(host_board.python)} "$@"\n')
        python.chmod(0o755)
        with SshSession(replace(host_board.spec(), python=str(python))) as session:
            assert session.facts()["machine"]

    def test_refused_for_a_while(self, host_board: Board, relay: Relay, big: Path) -> None:
        with opened(host_board, relay) as session:
            relay.faults.append(Fault("refuse", 1000, seconds=2.0))
            assert session.push(big)
            assert relay.fired

    def test_refused_for_good(self, host_board: Board, relay: Relay, big: Path) -> None:
        with opened(host_board, relay, patience_s=1.5) as session:
            relay.refusing = True
            relay.cut()
            start = time.monotonic()
            with pytest.raises(ChannelError, match="cannot be reached") as caught:
                session.push(big)
            assert caught.value.kind == "lost"
            assert time.monotonic() - start < 15

    def test_a_key_that_changes_while_we_measure(
        self, host_board: Board, relay: Relay, config: Callable[[str, str], None], big: Path
    ) -> None:
        with opened(host_board, relay) as session:
            config(str(host_board.keys / "known_hosts"), "/dev/null")
            relay.cut()
            with pytest.raises(ChannelError, match="is not known") as caught:
                session.push(big)
            assert not caught.value.retryable

    def test_a_slow_link(self, host_board: Board, relay: Relay, big: Path) -> None:
        relay.delay_s, relay.bytes_per_s = 0.002, 2_000_000
        with opened(host_board, relay) as session:
            assert host_board.path(session.push(big)).read_bytes() == big.read_bytes()

    def test_a_keeper_that_is_killed(self, host_board: Board, big: Path) -> None:
        with opened(host_board) as session:
            for pid in processes(f"edgeprune-keeper-{session._link.token}"):
                os.kill(pid, signal.SIGKILL)
            assert session.push(big)

    def test_silence_is_filled_by_the_heartbeat(self, host_board: Board) -> None:
        with SshSession(host_board.spec(), heartbeat_s=0.6) as session:
            keepers = processes(f"edgeprune-keeper-{session._link.token}")
            time.sleep(2)
            assert processes(f"edgeprune-keeper-{session._link.token}") == keepers

    def test_a_closed_session_stays_closed(self, host_board: Board, big: Path) -> None:
        session = opened(host_board)
        session.close()
        with pytest.raises(DeviceError, match="is closed"):
            session.push(big)

    def test_no_agent_and_nothing_to_type(self, host_board: Board) -> None:
        command = ssh_command(Address("host"), Path("s"), "true")
        shown = subprocess.run([*command[:-3], "-G", *command[-3:]], capture_output=True, text=True, check=True).stdout
        for line in ("batchmode yes", "stricthostkeychecking true", "forwardagent no", "clearallforwardings yes"):
            assert line in shown.splitlines()


@needs(*ARM_PROGRAMS)
class TestArm:
    def test_it_is_one(self, arm_board: Board, probe: Path) -> None:
        with SshSession(arm_board.spec()) as session:
            assert session.facts()["machine"] == "aarch64"
            assert session.facts()["emulated"] is False
            channel = session.start(probe)
            channel.request({"op": "x"}, Deadline.after(30))
            with pytest.raises(ChannelError) as caught:
                channel.request({"op": "spin"}, Deadline.after(0.5))
            assert caught.value.kind == "timeout"
            assert eventually(lambda: not processes(f"edgeprune-probe-{session._link.token}"))

    def test_the_default_folder_is_in_the_home(self, arm_board: Board) -> None:
        with SshSession(replace(arm_board.spec(), folder="")) as session:
            assert session.facts()["folder"] == "/home/pi/.cache/edgeprune"

    def test_a_killed_probe(self, arm_board: Board, probe: Path) -> None:
        with SshSession(arm_board.spec()) as session, pytest.raises(ChannelError) as caught:
            session.start(probe).request({"op": "kill"}, Deadline.after(30))
        assert caught.value.kind == "killed"

    def test_a_full_disk(self, arm_board: Board, tmp_path: Path) -> None:
        small, large = tmp_path / "small.bin", tmp_path / "large.bin"
        small.write_bytes(os.urandom(700_000))
        large.write_bytes(os.urandom(2_000_000))
        spec = arm_board.spec(folder="/small/folder")
        with SshSession(spec) as session:
            session.push(small)
            with pytest.raises(ChannelError, match=r"no room left on board.*free some space there") as caught:
                session.push(large)
            assert caught.value.kind == "full"
            assert not caught.value.retryable
            assert session.push(small)
        with SshSession(spec) as session:  # what is only kept makes room
            small.write_bytes(os.urandom(800_000))
            assert session.push(small)


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "destination"),
        [
            ("ssh://pi@raspberrypi.local", ["-l", "pi", "--", "raspberrypi.local"]),
            ("ssh://rpi4", ["--", "rpi4"]),
            ("ssh://rpi4:2222/", ["-p", "2222", "--", "rpi4"]),
            ("ssh://pi@[fe80::1%eth0]:22", ["-l", "pi", "-p", "22", "--", "fe80::1%eth0"]),
        ],
    )
    def test_good_ones(self, text: str, destination: list[str]) -> None:
        assert Address.parse(text).destination == destination

    @pytest.mark.parametrize(
        "text",
        [
            *("", "rpi4", "pi@rpi4", "ssh://", "ssh://-oProxyCommand=x", "ssh://-l@host", "ssh://pi:secret@host"),
            *("ssh://a b", "ssh://a;b", "ssh://a\nb", "ssh://a\n", "ssh://host:0", "ssh://host:65536", "ssh://host:x"),
            *(
                "ssh://host/path",
                "ssh://$(x)",
                "ssh://`x`",
                "ssh://é",
                "ssh://a@b@c",
                "adb://x",
                "ssh://[::1",
                "SSH://x",
            ),
        ],
    )
    def test_bad_ones(self, text: str) -> None:
        with pytest.raises(UsageError, match="no address of a board") as caught:
            SshSession(DeviceSpec("board", "ssh", text))
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)

    @settings(max_examples=500, deadline=None)
    @given(st.text() | st.text(alphabet="ssh:/@-[]%.;$`'\"\\ \n\0aé9").map(lambda text: f"ssh://{text}"))
    def test_whatever_is_accepted_is_neither_option_nor_shell(self, text: str) -> None:
        try:
            address = Address.parse(text)
        except UsageError:
            return
        words = address.destination
        assert words[words.index("--") + 1 :] == [address.host]
        assert not address.user.startswith("-")
        assert all(char.isalnum() or char in "_.-:%" for char in address.host + address.user)
        assert shlex.split(address.typed)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(), min_size=1, max_size=4))
    @pytest.mark.parametrize("shell", ["sh", "bash"])
    def test_words_reach_the_command_as_they_are(self, shell: str, words: list[str]) -> None:
        try:
            text = remote_command(["/usr/bin/printf", "%s\\0".replace("\\", ""), *words])
        except UsageError:
            return
        expected = [os.environ["HOME"] + word[1:] if word.startswith("~/") else word for word in words]
        said = subprocess.run([shell, "-c", text], capture_output=True, check=True).stdout
        assert said == b"".join(f"{word}0".encode() for word in expected)

    def test_what_no_shell_takes_alike(self) -> None:
        for word in ("a'b", "a\\b", "a!b", "a\nb", "a\0b", "\ud800"):
            with pytest.raises(UsageError):
                quote(word)

    @settings(max_examples=200)
    @given(st.text())
    def test_whatever_ssh_says_is_one_line(self, said: str) -> None:
        error = explain("board", Address("host"), said)
        assert str(error).isprintable()
        assert len(str(error)) < 600


class TestKeeper:
    def test_it_fits_through_the_smallest_server_and_an_old_python(self) -> None:
        source = Path(keeper.__file__).read_bytes()
        ast.parse(source, feature_version=(3, 9))
        assert len(base64.b64encode(zlib.compress(source, 9))) < 8000  # dropbear takes commands of 9000 bytes

    def test_a_disk_that_fails_is_not_the_files_fault(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(path: object) -> None:
            raise OSError(errno.EIO, "Input/output error", str(path))

        def ask(**request: object) -> dict[str, object]:
            return one.answer(json.dumps({"n": 1, **request}).encode())

        one = keeper.Keeper("mark")
        folder = str(tmp_path / "folder")
        assert ask(op="open", folder=folder, who="me", attempt=0, cache_bytes=9, patience_s=9.0)["ok"]
        monkeypatch.setattr(keeper, "_sha256", failing)
        Path(folder, "models", "0" * 64).write_text("x")
        assert ask(op="have", name="0" * 64, size=1)["kind"] == "crashed"
        assert ask(op="get", path=f"{folder}/scratch/missing", offset=0, size=1)["kind"] == "refused"
        one.close()

    def test_what_the_keeper_before_has_kept_is_kept(self, tmp_path: Path) -> None:
        """Its answer was lost with its link, and the next one is asked again."""
        folder, content = str(tmp_path / "folder"), b"a model"
        name = hashlib.sha256(content).hexdigest()

        def ask(op: str, **request: object) -> object:
            answer = one.answer(json.dumps({"n": 1, "op": op, **request}).encode())
            return answer["ok"] or answer["kind"]

        one = keeper.Keeper("mark")
        assert ask("open", folder=folder, who="me", attempt=0, cache_bytes=99, patience_s=9.0)
        assert ask("put", name=name, offset=0, data=base64.b64encode(content).decode()) is True
        assert ask("keep", name=name) is True
        one._used.clear()  # another process knows nothing of what this one did
        assert ask("keep", name=name) is True
        one._used.clear()
        Path(folder, "models", name).write_bytes(b"a model that the disk lost")
        assert ask("keep", name=name) == "garbled"
        one.close()

    @settings(max_examples=200, deadline=None)
    @given(
        st.binary()
        | st.recursive(
            st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        ).map(lambda value: json.dumps(value).encode())
        | st.fixed_dictionaries({"op": st.sampled_from(keeper.Keeper._OPS), "n": st.integers(), "x": st.text()}).map(
            lambda value: json.dumps(value).encode()
        )
    )
    def test_any_line_has_an_answer(self, line: bytes) -> None:
        assert keeper.Keeper("mark").answer(line)["ok"] is False


class TestSetup:
    def test_dry_run_says_what_would_be_typed(self, host_board: Board) -> None:
        said: list[str] = []
        python = setup_board(host_board.spec(), said.append, dry_run=True)
        assert python.endswith("/venv/bin/python")
        assert not Path(python).exists()
        assert len(said) == 2
        assert said[0].startswith(f"$ {host_board.python} -m venv ")
        assert "onnxruntime==" in said[1]

    def test_its_own_environment_is_made_anew_though_its_python_is_gone(self, host_board: Board) -> None:
        said: list[str] = []
        spec = host_board.spec()
        gone = replace(spec, python=f"{spec.folder}/venv/bin/python")
        assert setup_board(gone, said.append, dry_run=True) == gone.python
        assert "anew" in said[0]
        assert said[1].startswith("$ python3 -m venv --clear ")

    def test_a_failing_command_is_one_error(self, host_board: Board) -> None:
        said: list[str] = []
        spec = host_board.spec()
        Path(spec.folder).mkdir(mode=0o700)
        (Path(spec.folder) / "venv").write_text("in the way")
        with pytest.raises(DeviceError, match="-m venv failed on board"):
            setup_board(spec, said.append)
        assert len(said) > 1

    @pytest.mark.parametrize(
        ("machine", "python", "has", "has_not"),
        [
            ("aarch64", "3.9.2", "onnxruntime==1.19.2", "tflite"),
            ("aarch64", "3.13.1", "ai-edge-litert==2.3.0", "tflite"),
            ("armv7l", "3.9.2", "tflite-runtime==2.14.0", "onnxruntime"),
            ("armv8l", "3.9.2", "tflite-runtime==2.14.0", "onnxruntime"),
        ],
    )
    def test_pins(self, machine: str, python: str, has: str, has_not: str) -> None:
        facts = {"machine": machine, "python": python, "folder": "/f"}
        text = str(setup_commands("python3", facts, ("onnxruntime", "ai-edge-litert")))
        assert has in text
        assert has_not not in text

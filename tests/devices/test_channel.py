from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.devices.channel import MAX_ANSWER_BYTES, ChannelError, ProcessChannel, read_answer

FAKE = Path(__file__).parents[1] / "fakes" / "fake_probe.py"
ECHO = "import json, sys\nfor line in sys.stdin:\n    print(json.dumps({'ok': True, **json.loads(line)}), flush=True)\n"
Start = Callable[..., ProcessChannel]


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str) -> ProcessChannel:
            channel = ProcessChannel([sys.executable, *arguments])
            stack.callback(channel.close)
            return channel

        yield begin


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_come_back_in_order(start: Start) -> None:
    channel = start("-c", ECHO)
    for index in range(20):
        assert channel.request({"op": "x", "index": index}, Deadline.after(20))["index"] == index


def test_a_long_request_and_a_long_answer_pass(start: Start) -> None:
    text = "é" * 500_000
    assert start("-c", ECHO).request({"text": text}, Deadline.after(20))["text"] == text


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("die", "crashed", "exit code 7.*out of memory"),
        ("abort", "crashed", "SIGABRT"),
        ("garbage", "garbled", "no JSON"),
        ("flood", "garbled", str(MAX_ANSWER_BYTES)),
        ("nested", "garbled", "no JSON"),
        ("array", "garbled", "not an object"),
        ("two", "garbled", "more than one line"),
        ("other", "garbled", "request 99 instead of 1"),
        ("eof", "crashed", "closed its output"),
    ],
)
def test_misbehaviour_has_a_name(start: Start, how: str, kind: str, says: str) -> None:
    channel = start(str(FAKE), how)
    with pytest.raises(ChannelError, match=says) as caught:
        channel.request({"op": "x"}, Deadline.after(20))
    assert caught.value.kind == kind
    assert caught.value.retryable
    assert channel.closed
    assert not alive(channel.pid)
    with pytest.raises(ChannelError, match="has ended"):
        channel.request({"op": "x"}, Deadline.after(20))


@pytest.mark.parametrize("how", ["hang", "stderr"])
def test_a_passed_deadline_kills_the_whole_group(start: Start, how: str) -> None:
    channel = start(str(FAKE), how)
    with pytest.raises(ChannelError, match="in time") as caught:
        channel.request({"op": "x"}, Deadline.after(0.5))
    assert caught.value.kind == "timeout"
    assert len(caught.value.message) < 2000
    assert not alive(channel.pid)


def test_grandchildren_die_too(start: Start, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    channel = start("-c", script)
    limit = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < limit:
        time.sleep(0.02)
    with pytest.raises(ChannelError):
        channel.request({}, Deadline.after(0.05))
    child = int(pid_file.read_text())
    while alive(child) and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z" and time.monotonic() < limit:
        time.sleep(0.02)
    assert not alive(child) or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"


@pytest.mark.parametrize("asked", [True, False])
def test_children_of_a_probe_that_ended_by_itself_die(start: Start, tmp_path: Path, asked: bool) -> None:
    pid_file = tmp_path / "pid"
    quiet = "stdin=-3, stdout=-3, stderr=-3"  # DEVNULL: the pipes end with the probe
    channel = start(
        "-c",
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], {quiet})\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "sys.stdin.readline()\n",
    )
    limit = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < limit:
        time.sleep(0.02)
    if asked:
        with pytest.raises(ChannelError, match="exit code 0"):
            channel.request({}, Deadline.after(20))
    channel.close()
    child = Path(f"/proc/{pid_file.read_text()}/stat")
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < limit:
        time.sleep(0.02)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_killed_from_outside_while_idle(start: Start) -> None:
    channel = start("-c", ECHO)
    channel.request({}, Deadline.after(20))
    os.kill(channel.pid, signal.SIGKILL)
    with pytest.raises(ChannelError) as caught:
        channel.request({}, Deadline.after(20))
    assert caught.value.kind == "killed"


def test_close_twice_is_fine(start: Start) -> None:
    channel = start("-c", ECHO)
    channel.close()
    channel.close()
    assert not alive(channel.pid)


def test_a_command_that_does_not_exist_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="cannot start"):
        ProcessChannel(["/nowhere/python"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps({"ok": text, "n": 1}).encode()))
def test_any_line_is_an_answer_or_garbled(line: bytes) -> None:
    try:
        answer = read_answer(line, 1)
    except ChannelError as error:
        assert error.kind == "garbled"  # noqa: PT017 - either way is right
        assert len(str(error)) < 1000  # noqa: PT017
    else:
        assert isinstance(answer["ok"], bool)
        assert answer["n"] == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(json_values, st.booleans())
def test_any_json_is_an_answer_or_garbled(value: object, whole: bool) -> None:
    message = value if not whole else {"ok": True, "n": 3, "value": value}
    try:
        answer = read_answer(json.dumps(message).encode(), 3)
    except ChannelError as error:
        assert error.kind == "garbled"  # noqa: PT017 - either way is right
        assert not whole
    else:
        assert answer["n"] == 3

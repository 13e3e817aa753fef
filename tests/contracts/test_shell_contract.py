"""What every `ShellSession` must do; a new transport adds a fixture parameter."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import cast

import pytest
from boards.board import ARM_PROGRAMS, HOST_PROGRAMS
from needs import needs

from edgeprune.core.clock import Deadline
from edgeprune.core.kinds import KINDS
from edgeprune.core.session import DeviceSpec, ShellSession
from edgeprune.devices import ChannelError, find_device, open_session

NAMES = ["a b", "", "it's", '"x" $HOME `id` \\ *', "é ü 名", "-n", "line\nbreak", "~/x", "/data"]


@pytest.fixture(
    params=[
        "local",
        pytest.param("host_board", marks=needs(*HOST_PROGRAMS)),
        pytest.param("arm_board", marks=needs(*ARM_PROGRAMS)),
        pytest.param("phone", marks=needs("adb")),
    ]
)
def session(request: pytest.FixtureRequest) -> Iterator[ShellSession]:
    spec = find_device("local")
    if request.param.endswith("_board"):
        spec = request.getfixturevalue(request.param).spec()
    elif request.param == "phone":
        spec = DeviceSpec("phone", "adb", f"adb://{request.getfixturevalue('phone').address}")
    with contextlib.closing(open_session(spec)) as opened:
        yield cast(ShellSession, opened)


def soon() -> Deadline:
    return Deadline.after(30)


class TestShell:
    def test_words_arrive_as_they_are(self, session: ShellSession) -> None:
        answer = session.sh('printf "%s|" "$#" "$@"', NAMES, soon())
        assert answer.code == 0
        assert answer.text == "|".join([str(len(NAMES)), *NAMES, ""])

    def test_a_script_may_have_quotes_and_lines(self, session: ShellSession) -> None:
        script = "# it's \"one\"\nsaid='a  b'\nfor each; do\n    printf '%s\\n' \"$said $each\"\ndone\n"
        assert session.sh(script, ["1", "2"], soon()).text == "a  b 1\na  b 2\n"

    def test_exit_codes_and_what_went_wrong(self, session: ShellSession) -> None:
        answer = session.sh("echo out; echo err >&2; exit 84", [], soon())
        assert (answer.code, answer.text) == (84, "out\nerr\n")
        assert session.sh("kill -9 $$", [], soon()).code == 137

    def test_nothing_is_there_to_be_read(self, session: ShellSession) -> None:
        assert session.sh("cat; echo end", [], soon()).text == "end\n"

    def test_what_was_pushed_is_there(self, session: ShellSession, tmp_path_factory: pytest.TempPathFactory) -> None:
        file = tmp_path_factory.mktemp("pushed") / "it's é.bin"
        file.write_bytes(b"12345")
        assert session.sh('cat <"$1"', [session.push(file)], soon()).text == "12345"

    def test_it_ends_at_its_deadline(self, session: ShellSession) -> None:
        start = time.monotonic()
        with pytest.raises(ChannelError) as caught:
            session.sh("sleep 60", [], Deadline.after(1.5))
        assert caught.value.kind == "timeout"
        assert time.monotonic() - start < 20
        assert session.sh("echo on", [], soon()).text == "on\n"


def test_kinds_whose_row_says_so_have_one() -> None:
    from importlib import import_module

    for kind in KINDS.values():
        session = getattr(import_module(kind.session[0]), kind.session[1])
        assert hasattr(session, "sh") or not kind.shell
    assert {kind.name for kind in KINDS.values() if kind.shell} == {"local", "ssh", "adb"}
    assert dataclasses.fields(DeviceSpec)

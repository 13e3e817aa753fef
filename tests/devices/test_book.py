from __future__ import annotations

import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.core.errors import EdgepruneError, StorageError, UsageError
from edgeprune.devices.names import book
from edgeprune.devices.names.settings import parse_address, to_spec


@pytest.fixture(autouse=True)
def own_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPRUNE_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write(text: str) -> Path:
    file = book.user_file()
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_a_device_comes_back_with_its_boards_defaults() -> None:
    book.add("rpi4", {"address": "ssh://pi@raspberrypi.local", "threads": 4, "cache_size": "100MB"})
    spec = book.entries()["rpi4"].spec
    assert (spec.kind, spec.address, spec.board) == ("ssh", "ssh://pi@raspberrypi.local", "rpi4")
    assert (spec.threads, spec.runtime, spec.python, spec.cache_bytes) == (4, "onnxruntime", "python3", 100_000_000)
    book.add("phone", {"address": "adb://", "benchmark_model": "bin/benchmark_model"})
    phone = book.entries()["phone"].spec
    assert (phone.board, phone.runtime) == ("android", "litert")
    assert phone.benchmark_model == str(Path.cwd() / "bin/benchmark_model")
    book.add("other", {"address": "ssh://host", "board": "armv7", "runtime": "onnxruntime"})
    assert book.entries()["other"].spec.runtime == "onnxruntime"


def test_the_file_is_the_users_alone_and_keeps_what_was_given_to_it() -> None:
    book.add("a", {"address": "ssh://a"})
    assert stat.S_IMODE(book.user_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(book.user_file().parent.stat().st_mode) == 0o700
    book.user_file().chmod(0o640)
    book.add("b", {"address": "ssh://b"})
    assert stat.S_IMODE(book.user_file().stat().st_mode) == 0o640


def test_what_a_killed_edit_left_goes_with_the_next_one() -> None:
    book.add("a", {"address": "ssh://a"})
    left, theirs = (
        book.user_file().with_name(f".{book.user_file().name}.{name}") for name in ("abcdefgh.tmp", "original")
    )
    left.touch()
    theirs.touch()
    book.add("b", {"address": "ssh://b"})
    assert theirs.exists()
    assert not left.exists()


def test_the_projects_entries_win() -> None:
    book.add("rpi4", {"address": "ssh://user"})
    book.add("rpi4", {"address": "ssh://project"}, project=True)
    assert book.entries()["rpi4"].spec.address == "ssh://project"
    assert book.remove("rpi4") == book.project_file()
    assert book.entries()["rpi4"].spec.address == "ssh://user"
    assert book.remove("rpi4") == book.user_file()
    assert book.entries() == {}


def test_files_are_relative_to_the_book_they_stand_in(own_books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book.add("mine", {"address": "simulated://sim.toml"})
    book.add("ours", {"address": "simulated://sim.toml"}, project=True)
    assert tomllib.loads(book.project_file().read_text())["devices"]["ours"]["address"] == "simulated://sim.toml"
    here = str(own_books / "work" / "sim.toml")
    assert {name: entry.spec.address for name, entry in book.entries().items()} == {"mine": here, "ours": here}
    monkeypatch.chdir(own_books)
    assert book.entries()["mine"].spec.address == here


def test_comments_order_and_links_are_kept(own_books: Path) -> None:
    text = '# mine\n[devices.b] # second\naddress = "ssh://b"   # by hand\n\n[devices.a]\naddress = "ssh://a"\n'
    real = own_books / "dotfiles.toml"
    real.write_text(text)
    book.user_file().parent.mkdir()
    book.user_file().symlink_to(real)
    book.set_python(book.entries()["b"], "/x/python")
    book.add("c", {"address": "ssh://c"})
    book.remove("a")
    assert book.user_file().is_symlink()
    kept = real.read_text()
    assert kept.startswith('# mine\n[devices.b] # second\naddress = "ssh://b"   # by hand\npython = "/x/python"\n')
    assert list(tomllib.loads(kept)["devices"]) == ["b", "c"]


def test_a_name_is_not_taken_twice_unless_asked() -> None:
    book.add("a", {"address": "ssh://a", "threads": 3})
    with pytest.raises(UsageError, match=r"device 'a' is in .*devices\.toml already; add --replace"):
        book.add("a", {"address": "ssh://b"})
    book.add("a", {"address": "ssh://b"}, replace=True)
    assert tomllib.loads(book.user_file().read_text())["devices"]["a"] == {"address": "ssh://b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[devices", "is not TOML"),
        ("x = [" * 100_000, "is not TOML"),
        ("[devicse.a]\n", "unknown key 'devicse' in .*did you mean 'devices'"),
        ("devices = 3\n", "is no table"),
        ("[devices]\na = 3\n", "device 'a': it is no table"),
        ('[devices.a]\nadress = "ssh://a"\n', "device 'a': a device has no setting 'adress'; did you mean 'address'"),
        ("[devices.a]\n", "device 'a': it has no address"),
        ("[devices.a]\naddress = 3\n", "address is '3'"),
        ('[devices.a]\naddress = "ssh://a"\nthreads = true\n', "threads is 'True'"),
        ('[devices.a]\naddress = "ssh://a"\nthreads = 0\n', "threads is '0'"),
        ('[devices.a]\naddress = "ssh://a"\nruntime = "lite"\n', "no runtime 'lite'; did you mean 'litert'"),
        ('[devices.a]\naddress = "ssh://a"\nboard = "rpi44"\n', "no known board 'rpi44'; did you mean 'rpi4'"),
        ('[devices.a]\naddress = "ssh://a"\nboard = ["rpi4"]\n', "no known board"),
        ('[devices.a]\naddress = "ssh://a"\ncache_size = "0.5x"\n', "no size of a cache"),
        ('[devices.a]\naddress = "ssh://a"\ncache_size = "1e999MB"\n', "1e999MB"),
        ('[devices.a]\naddress = "ssh://a"\npython = "-c"\n', "take for an option"),
        ('[devices.a]\naddress = "ssh://a"\nfolder = "a\\u0007b"\n', "not a line"),
        ('[devices.a]\naddress = "ssh://a"\nbenchmark_model = "b"\n', "benchmark_model does nothing .* by ssh"),
        ('[devices.a]\naddress = "adb://"\npython = "p"\n', "python does nothing .* by adb"),
        ('[devices.rpi4]\naddress = "adb://"\n', "rpi4 is a board reached by ssh; give it an address like ssh://pi"),
        ('[devices.local]\naddress = "ssh://a"\n', "'local' is built in"),
        ('[devices.emulated-rpi4]\naddress = "ssh://a"\n', "'emulated-rpi4' is built in"),
        ('[devices."a b"]\naddress = "ssh://a"\n', "'a b' is no name for a device"),
        ('[devices.a]\naddress = "ssh://pi:secret@a"\n', "holds no password"),
    ],
)
def test_a_wrong_book_is_one_clear_line(text: str, says: str) -> None:
    file = write(text)
    with pytest.raises(UsageError, match=says) as caught:
        book.entries()
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert file.read_text() == text


def test_what_cannot_be_read_or_written() -> None:
    write("").unlink()
    book.user_file().mkdir()
    with pytest.raises(UsageError, match="cannot read the device book"):
        book.entries()
    book.user_file().rmdir()
    book.user_file().parent.rmdir()
    book.user_file().parent.write_text("a file where the folder should be")
    with pytest.raises((UsageError, StorageError), match=r"devices"):
        book.add("a", {"address": "ssh://a"})


def test_removing_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="no device 'a' to remove; the book is empty"):
        book.remove("a")
    book.add("kitchen", {"address": "ssh://a"})
    with pytest.raises(UsageError, match="did you mean 'kitchen'"):
        book.remove("kitchn")


def test_a_broken_entry_can_be_replaced_and_removed() -> None:
    write('[devices.a]\nadress = "x"\n[devices.b]\nport = 3\n')
    book.add("a", {"address": "ssh://a"}, replace=True)
    book.remove("b")
    assert book.entries()["a"].spec.address == "ssh://a"


ADD = """
import sys
from edgeprune.devices.names import book
for index in sys.argv[1:]:
    book.add("board" + index, {"address": "ssh://host" + index})
"""


def test_edits_at_the_same_time_lose_nothing() -> None:
    # Processes of their own: forks of this one would inherit the threads of whatever was tested before.
    workers = [subprocess.Popen([sys.executable, "-c", ADD, *map(str, range(first, 40, 4))]) for first in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert set(book.entries()) == {f"board{index}" for index in range(40)}
    assert {path.name for path in book.user_file().parent.iterdir()} == {"devices.toml", ".devices.lock"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ssh://host", "ssh"),
        ("ssh://pi@host/", "ssh"),
        ("ssh://pi@10.0.0.7:2222", "ssh"),
        ("ssh://pi@[fe80::1%eth0]:22", "ssh"),
        ("adb://", "adb"),
        ("adb://192.168.1.5:5555", "adb"),
        ("simulated:///a/b c.toml", "simulated"),
    ],
)
def test_addresses(text: str, kind: str) -> None:
    assert parse_address(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "http://host",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://host:0",
        "ssh://host:99999",
        "ssh://host/folder",
        "ssh://host;reboot",
        "ssh://a b",
        "ssh://host\n",
        "adb://-s",
        "adb://a b",
        "simulated://",
        "simulated://a\x1b[31m.toml",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["ssh://pi:secret@host", "pi:secret@host", "http://u:secret@h", "ssh://a:secret@b@c"])
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match=r"holds no password.*ssh-copy-id") as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


hostile = st.text(max_size=100) | st.sampled_from(["../x", "a" * 5000, "\x1b[2J", "$(reboot)", "\ud800", "a\nb", "--"])


@settings(max_examples=300, deadline=None)
@given(hostile, hostile, st.dictionaries(st.sampled_from(["python", "folder", "cache_size"]) | hostile, hostile))
def test_any_text_is_a_device_or_one_clear_line(name: str, address: str, more: Mapping[str, Any]) -> None:
    for where in (address, f"ssh://{address}", f"simulated://{address}"):
        try:
            spec = to_spec(name, {**more, "address": where}, Path("/base"))
        except EdgepruneError as error:
            assert str(error).isprintable()  # noqa: PT017 - either way is right
            assert len(str(error)) < 400  # noqa: PT017
        else:
            assert all(text.isprintable() for text in (spec.name, spec.address, spec.python, spec.folder))


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, st.booleans()), max_size=8))
def test_whatever_is_added_and_removed_the_book_holds_the_rest(steps: list[tuple[str, bool]]) -> None:
    write("# top\n")
    there: set[str] = set()
    for name, adding in steps:
        if adding:
            try:
                book.add(name, {"address": "ssh://host"}, replace=True)
            except UsageError:  # a board of another kind, or built in
                continue
            there.add(name)
        elif name in there:
            book.remove(name)
            there.remove(name)
        assert set(book.entries()) == there
        assert book.user_file().read_text().startswith("# top\n")

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.session import DeviceSpec
from edgeprune.devices import KNOWN_BOARDS, find_device, open_session
from edgeprune.devices.names import book


@pytest.fixture(autouse=True)
def own_books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def test_local_is_found_and_opens_whatever_the_book_holds(tmp_path: Path) -> None:
    (tmp_path / book.PROJECT_FILE).write_text("no TOML")
    with open_session(find_device("local")) as session:
        assert session.spec == DeviceSpec(name="local", kind="local")


@pytest.mark.parametrize("name", sorted(name for name, board in KNOWN_BOARDS.items() if board.kind != "emulated"))
def test_a_known_board_has_no_address_until_it_is_added(name: str) -> None:
    example = KNOWN_BOARDS[name].example
    with pytest.raises(DeviceError, match=rf"^device '{name}' has no address; type: edgeprune devices add") as caught:
        find_device(name)
    assert caught.value.hint.endswith(f"edgeprune devices add {name} {example}")
    assert caught.value.exit_code == 4
    assert not caught.value.retryable
    book.add(name, {"address": example})
    assert find_device(name).kind == KNOWN_BOARDS[name].kind


@pytest.mark.parametrize("name", ["emulated-rpi3", "emulated-rpi4"])
def test_emulated_ones_need_no_address(name: str) -> None:
    spec = find_device(name)
    assert (spec.kind, spec.unit, spec.emulated, spec.threads) == ("emulated", "instructions", True, 1)


def test_an_unknown_name_gets_the_nearest() -> None:
    book.add("kitchen", {"address": "ssh://pi@kitchen"})
    with pytest.raises(UsageError, match=r"did you mean 'rpi4'"):
        find_device("rpi44")
    with pytest.raises(UsageError, match=r"did you mean 'kitchen'"):
        find_device("kitchn")
    with pytest.raises(UsageError, match=r"choose one of: .*kitchen.*local"):
        find_device("zzzzzz")


def test_an_address_is_a_device() -> None:
    spec = find_device("ssh://pi@10.0.0.7:2222")
    assert (spec.name, spec.kind, spec.address) == ("ssh://pi@10.0.0.7:2222", "ssh", "ssh://pi@10.0.0.7:2222")
    assert find_device("adb://emulator-5554").board == "android"
    with pytest.raises(UsageError, match=r"did you mean 'ssh://pi@10\.0\.0\.7'\?"):
        find_device("pi@10.0.0.7")


def test_a_python_that_does_not_exist() -> None:
    with pytest.raises(DeviceError, match=r"'/nowhere/python'.*give the path") as caught:
        open_session(DeviceSpec("local", "local", python="/nowhere/python"))
    assert not caught.value.retryable


def test_a_python_that_does() -> None:
    with open_session(DeviceSpec("local", "local", python=sys.executable)) as session:
        assert session.facts()["device"] == "local"

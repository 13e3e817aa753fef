from __future__ import annotations

import sys

import pytest

from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.types import DeviceSpec
from edgeprune.devices import KNOWN_BOARDS, find_device, open_session


def test_local_is_found_and_opens() -> None:
    with open_session(find_device("local")) as session:
        assert session.spec == DeviceSpec(name="local", kind="local")


@pytest.mark.parametrize("name", sorted(KNOWN_BOARDS))
def test_a_known_board_is_not_configured(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"device '{name}' .*is not configured.*--device local") as caught:
        find_device(name)
    assert not caught.value.retryable


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'rpi4'"):
        find_device("rpi44")
    with pytest.raises(UsageError, match=r"choose one of: .*local"):
        find_device("zzzzzz")


def test_another_kind_cannot_be_opened() -> None:
    with pytest.raises(DeviceError, match="kind 'ssh'"):
        open_session(DeviceSpec(name="x", kind="ssh"))


def test_a_python_that_does_not_exist() -> None:
    with pytest.raises(DeviceError, match=r"'/nowhere/python'.*give the path") as caught:
        open_session(find_device("local", python="/nowhere/python"))
    assert not caught.value.retryable


def test_a_python_that_does() -> None:
    with open_session(find_device("local", python=sys.executable)) as session:
        assert session.facts()["device"] == "local"

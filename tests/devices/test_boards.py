from __future__ import annotations

import pytest

from edgeprune.devices.names.boards import KNOWN_BOARDS
from edgeprune.devices.names.settings import parse_address


@pytest.mark.parametrize("name", sorted(KNOWN_BOARDS))
def test_an_example_is_an_address_of_its_kind(name: str) -> None:
    board = KNOWN_BOARDS[name]
    if board.kind == "emulated":
        assert board.example == ""
        assert "emulated" in board.title
    else:
        assert parse_address(board.example).kind == board.kind


def test_what_has_no_wheel_of_onnxruntime_uses_litert() -> None:
    assert {name for name, board in KNOWN_BOARDS.items() if board.runtime == "litert"} == {"armv7", "android"}

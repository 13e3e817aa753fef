"""Whatever a file holds, a `Source` gives a value of the type asked for or one of our errors, on one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.reading import MAX_DEPTH, MAX_TOML_BYTES, Source, short
from edgeprune.search.reward import Reward


def source(path: Path) -> Source:
    return Source(path, StorageError, "start a new run")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "it is not JSON: Expecting property name"),
        (b"\xff\xfe\x00", "it is not UTF-8"),
        (b"[1]", "Input should be a valid dictionary (got [1])"),
        (b'{"a": NaN}', "expected a finite number, got NaN"),
        (b'{"a": -1e999}', "expected a finite number, got -1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected a number of at most 19 digits, got one of 5,000"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "it is nested too deeply"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", f"expected lists and tables at most {MAX_DEPTH} deep"),
    ],
)
def test_json_that_cannot_be(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(StorageError) as refused:
        source(tmp_path / "x.json").read_json(dict)
    assert says in refused.value.message
    assert str(tmp_path / "x.json") in refused.value.message
    assert refused.value.hint == "start a new run"
    assert len(refused.value.message) < 600


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("seed = " + "9" * 5000, "it holds a number of thousands of digits"),
        ("a = " + "[" * 5000 + "]" * 5000, "it is nested too deeply"),
        (".".join("a" * 60) + " = 1", f"expected lists and tables at most {MAX_DEPTH} deep"),
        ("a = 0x" + "f" * 9000, "expected numbers of at most 19 digits, got a longer one"),
        ("#" * (MAX_TOML_BYTES + 1), "expected a file of at most 1,048,576 bytes, got more"),
        ("a = ", "it is not TOML: Invalid value"),
    ],
)
def test_toml_that_cannot_be(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(StorageError) as refused:
        source(tmp_path / "x.toml").read_toml()
    assert says in refused.value.message
    assert len(refused.value.message) < 600


def test_values_of_a_type_come_back_and_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"kept": {"fc1": [0, 2]}}')
    assert source(tmp_path / "plan.json").read_json(PruningPlan) == PruningPlan({"fc1": (0, 2)})
    (tmp_path / "plan.json").write_text('{"kept": {"fc1": [0, "x"], "fc2": 3}}')
    with pytest.raises(StorageError, match=r"kept\.fc1\.1: .* \(got 'x'\), and 1 more fault; "):
        source(tmp_path / "plan.json").read_json(PruningPlan)


def test_a_value_that_refuses_itself_is_a_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"accuracy": 0.9, "ncr": 2.0, "latency": -1.0, "memory": 0.5}')
    with pytest.raises(StorageError, match=r"cannot use .*x\.json: the reward's latency is -1.0: .*; start a new run"):
        source(tmp_path / "x.json").read_json(Reward)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        source(tmp_path / "none").read_json(dict)
    with pytest.raises(StorageError, match="Is a directory"):
        source(tmp_path).read_json(dict)


def test_a_guard_turns_faults_into_the_error_and_lets_ours_and_interrupts_pass() -> None:
    for fault in (IndexError("pop from empty list"), KeyError("x"), MemoryError(), struct_error()):
        with pytest.raises(StorageError, match="cannot read x: "), source(Path("x")).guarded():
            raise fault
    with pytest.raises(UsageError, match="ours"), source(Path("x")).guarded():
        raise UsageError("ours")
    with pytest.raises(KeyboardInterrupt), source(Path("x")).guarded():
        raise KeyboardInterrupt


def struct_error() -> Exception:
    import struct

    return struct.error("unpack requires a buffer of 4 bytes")


def test_values_in_messages_are_short() -> None:
    assert len(short(10**4000)) < 70
    assert len(short("a" * 9999)) < 70
    assert len(short([["x" * 99] * 99] * 99)) <= 80

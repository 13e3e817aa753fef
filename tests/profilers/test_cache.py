from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.core.errors import StorageError
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.profilers import cache
from edgeprune.profilers.cache import MeasurementCache

MEASURED = Measurement(
    unit="s",
    samples=(1e-5, 2e-5),
    warmups=(3e-5,),
    against=(2e-5, 2e-5),
    peak_bytes=1000,
    against_peak_bytes=2000,
    memory_method="mallinfo2",
    sha256="a" * 64,
    against_sha256="b" * 64,
    device="local",
    facts={"cpu": "x", "cores": 2, "emulated": False},
    settings=MeasureSettings("litert"),
    process=(0, 0),
    load_s=0.001,
)


def nobody(text: str) -> None:
    raise AssertionError(text)


def test_kept_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    with MeasurementCache(path, nobody) as one:
        assert one.get("k") is None
        one.put("k", MEASURED)
        one.put("k", replace(MEASURED, peak_bytes=7))
        one.put("other", MEASURED)
    with MeasurementCache(path, nobody) as two:
        assert two.get("k") == replace(MEASURED, peak_bytes=7)


def test_two_runs_share_it(tmp_path: Path) -> None:
    with MeasurementCache(tmp_path / "c", nobody) as one, MeasurementCache(tmp_path / "c", nobody) as two:
        one.put("k", MEASURED)
        assert two.get("k") == MEASURED


def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"this is no database" * 100)
    said: list[str] = []
    with MeasurementCache(tmp_path / "c", said.append) as one:
        one.put("k", MEASURED)
        assert one.get("k") == MEASURED
    assert len(said) == 1
    assert "is damaged (file is not a database): it is kept as c.damaged, and costs are measured again" in said[0]
    assert (tmp_path / "c.damaged").read_bytes().startswith(b"this is no database")


def test_a_file_of_other_tables_is_set_aside(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "c")
    base.execute(f"CREATE TABLE {cache._TABLE} (price INTEGER)")
    base.close()
    said: list[str] = []
    with MeasurementCache(tmp_path / "c", said.append) as one:
        one.put("k", MEASURED)
        assert one.get("k") == MEASURED
    assert len(said) == 1


def test_damage_that_is_found_later_is_set_aside_too(tmp_path: Path) -> None:
    with MeasurementCache(tmp_path / "c", nobody) as one:
        for index in range(50):
            one.put(f"k{index}", MEASURED)
    whole = (tmp_path / "c").read_bytes()
    # The first page tells the tables; what lies behind it holds the entries.
    (tmp_path / "c").write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    said: list[str] = []
    with MeasurementCache(tmp_path / "c", said.append) as one:
        assert one.get("k7") is None
        one.put("k7", MEASURED)
        assert one.get("k7") == MEASURED
    assert len(said) == 1
    assert "malformed" in said[0]


@pytest.mark.parametrize("data", ["", "{", "[]", '{"unit": "s"}', "[" * 5000, None, 7])
def test_a_row_that_cannot_be_read_is_none_and_said(tmp_path: Path, data: object) -> None:
    said: list[str] = []
    with MeasurementCache(tmp_path / "c", said.append) as one:
        one.put("k", MEASURED)
        one._base.execute(f"UPDATE {cache._TABLE} SET data = ?", (data,))
        assert one.get("k") is None
        assert len(said) == 1
        assert said[0].endswith("the cost is measured again")
        one.put("k", MEASURED)
        assert one.get("k") == MEASURED


def test_a_file_locked_for_long_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_WAIT_S", 0.05)
    with MeasurementCache(tmp_path / "c", nobody) as one:
        other = sqlite3.connect(tmp_path / "c", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"locked.*other runs"):
            one.put("k", MEASURED)
        other.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError):
            MeasurementCache(tmp_path / "c", nobody)
    finally:
        tmp_path.chmod(0o700)

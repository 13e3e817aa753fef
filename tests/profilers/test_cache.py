from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.core.errors import StorageError
from edgeprune.core.types import Measurement, MeasureSettings
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


def test_kept_from_run_to_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    with MeasurementCache(path) as one:
        assert one.get("k") is None
        one.put("k", MEASURED)
        one.put("k", replace(MEASURED, peak_bytes=7))
        one.put("other", MEASURED)
    with MeasurementCache(path) as two:
        assert two.get("k") == replace(MEASURED, peak_bytes=7)


def test_two_runs_share_it(tmp_path: Path) -> None:
    with MeasurementCache(tmp_path / "c") as one, MeasurementCache(tmp_path / "c") as two:
        one.put("k", MEASURED)
        assert two.get("k") == MEASURED


def test_a_damaged_file_says_to_delete_it(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match=r"damaged.*delete the file"):
        MeasurementCache(tmp_path / "c")


@pytest.mark.parametrize("data", ["", "{", "[]", '{"unit": "s"}', "[" * 5000])
def test_a_row_this_version_cannot_read_is_none(tmp_path: Path, data: str) -> None:
    with MeasurementCache(tmp_path / "c") as one:
        one.put("k", MEASURED)
        one._base.execute(f"UPDATE {cache._TABLE} SET data = ?", (data,))
        assert one.get("k") is None
        one.put("k", MEASURED)
        assert one.get("k") == MEASURED


def test_a_file_locked_for_long_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_WAIT_S", 0.05)
    with MeasurementCache(tmp_path / "c") as one:
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
            MeasurementCache(tmp_path / "c")
    finally:
        tmp_path.chmod(0o700)

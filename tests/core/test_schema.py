"""Files of other versions are refused in one line and stay as they were."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprune import load
from edgeprune.core.errors import EdgepruneError, StorageError, UsageError
from edgeprune.core.reading import Source
from edgeprune.core.schema import (
    CACHE_SCHEMA,
    PLAN_SCHEMA,
    RESULT_SCHEMA,
    TRIALS_SCHEMA,
    check_schema,
    open_database,
    read_record,
)
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.pipeline.records.front import Front
from edgeprune.pipeline.stored import finished
from edgeprune.profilers.cache import MeasurementCache


def cache(path: Path) -> MeasurementCache:
    return MeasurementCache(path, print)


BOTH = pytest.mark.parametrize(("opener", "schema"), [(TrialStore, TRIALS_SCHEMA), (cache, CACHE_SCHEMA)])


def database(path: Path, version: int, *statements: str) -> bytes:
    base = sqlite3.connect(path)
    for statement in (*statements, f"PRAGMA user_version = {version}"):
        base.execute(statement)
    base.commit()
    base.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (5, r"x was written by a newer edgeprune \(schema 5, this version reads 1\); do this"),
        (0, r"x was written by an older edgeprune \(schema 0, this version reads 1\)"),
        (True, "expected schema 1, got True"),
        (1.0, r"expected schema 1, got 1\.0"),
        (None, "expected schema 1, got None"),
        ("1", "expected schema 1, got '1'"),
    ],
)
def test_another_schema_is_named(found: Any, says: str) -> None:
    check_schema(Path("x"), 1, 1, "do this")
    with pytest.raises(EdgepruneError, match=says):
        check_schema(Path("x"), found, 1, "do this")


@BOTH
@pytest.mark.parametrize("off", [1, 99, -3])
def test_a_database_of_another_schema_is_refused_and_not_stamped(
    tmp_path: Path, opener: Any, schema: int, off: int
) -> None:
    before = database(tmp_path / "d", schema + off, "CREATE TABLE trials (a)")
    with pytest.raises(UsageError, match=rf"\(schema {schema + off}, this version reads {schema}\)"):
        opener(tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == before


@BOTH
def test_a_database_of_another_program_is_refused_and_not_stamped(tmp_path: Path, opener: Any, schema: int) -> None:
    before = database(tmp_path / "d", 0, "CREATE TABLE theirs (a)")
    with pytest.raises(StorageError, match="not a file of edgeprune"):
        opener(tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == before


@BOTH
def test_an_empty_file_gets_the_stamp(tmp_path: Path, opener: Any, schema: int) -> None:
    (tmp_path / "d").touch()
    opener(tmp_path / "d").close()
    assert sqlite3.connect(tmp_path / "d").execute("PRAGMA user_version").fetchone() == (schema,)
    opener(tmp_path / "d").close()


def test_a_cache_of_the_first_versions_which_had_no_stamp_is_kept(tmp_path: Path) -> None:
    table = "CREATE TABLE measurements_1 (key TEXT PRIMARY KEY, at TEXT, data TEXT)"
    database(tmp_path / "d", 0, table, "INSERT INTO measurements_1 VALUES ('k', 'then', 'x')")
    cache(tmp_path / "d").close()
    base = sqlite3.connect(tmp_path / "d")
    assert base.execute("SELECT key FROM measurements_1").fetchall() == [("k",)]
    assert base.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize(("schema", "word"), [(RESULT_SCHEMA + 1, "a newer"), (RESULT_SCHEMA - 1, "an older")])
def test_a_run_of_another_version_is_not_resumed(tmp_path: Path, schema: int, word: str) -> None:
    folder = RunFolder.create(tmp_path, "one", "x")
    folder.write_json("result.json", {"schema": schema, "status": "running"})
    # A newer version may have settings that this one does not know; that is not what must be told.
    folder.write_json("config.json", {"future": 1})
    with pytest.raises(UsageError, match=f"was written by {word} edgeprune"):
        RunFolder.existing(tmp_path, "one")


def test_a_plan_of_another_version_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(f'{{"schema": {PLAN_SCHEMA + 1}, "future": 1}}')
    with pytest.raises(
        UsageError, match=rf"plan\.json was written by a newer edgeprune \(schema {PLAN_SCHEMA + 1}, this"
    ):
        load(tmp_path)


@pytest.mark.parametrize("schema", [RESULT_SCHEMA + 1, RESULT_SCHEMA - 1])
def test_a_finished_result_of_another_version_is_neither_shown_nor_called_damaged(tmp_path: Path, schema: int) -> None:
    """The folder of a bound of a front: its run's own result.json is of this version."""
    folder = RunFolder(tmp_path)
    folder.write_json("result.json", {"schema": schema, "status": "done", "future": 1})
    with pytest.raises(UsageError, match=rf"result\.json was written by an?\b.* edgeprune \(schema {schema}, this"):
        finished(folder)
    folder.write_json("result.json", {"status": "done"})
    with pytest.raises(StorageError, match=f"expected schema {RESULT_SCHEMA}, got None"):
        finished(folder)


def test_the_schema_is_read_before_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    source = Source(path, StorageError, "do that")
    path.write_text('{"schema": 2, "future": 1}')
    with pytest.raises(UsageError, match=r"x\.json was written by a newer edgeprune .*; do this"):
        read_record(source, Front, 1, "do this")
    path.write_text('{"schema": 1, "future": 1}')
    with pytest.raises(StorageError, match=r"cannot use .*x\.json: status: .*; do that"):
        read_record(source, Front, 1, "do this")


HAMMER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from profilers.test_cache import MEASURED
from edgeprune.pipeline.records.front import Front
from edgeprune.pipeline.stored import finished
from edgeprune.profilers.cache import MeasurementCache
for _ in range(2):
    with MeasurementCache(Path(sys.argv[1]), print) as cache:
        for index in range(6):
            cache.put(f"{sys.argv[3]}-{index}", MEASURED)
            assert cache.get(f"{sys.argv[3]}-{index}") == MEASURED
"""


def test_several_processes_make_and_fill_one_cache_at_once(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", HAMMER, str(tmp_path / "new" / "c"), tests]
    running = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True) for n in range(3)]
    for process in running:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    base = sqlite3.connect(tmp_path / "new" / "c")
    assert base.execute("SELECT count(*) FROM measurements_1").fetchone() == (18,)
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_tables_and_stamp_come_together(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        open_database(tmp_path / "d", 1, "CREATE TABLE a (b); CREATE NONSENSE", hint="")
    base = sqlite3.connect(tmp_path / "d")
    assert base.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert json.loads("[0]") == list(base.execute("PRAGMA user_version").fetchone())

"""Versions of what we write: a file of another one is refused in one line, and never written over."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.reading import Source

T = TypeVar("T")

# Every file of ours carries one, as `schema` or as a database's `PRAGMA user_version`; it rises when a field or column
# changes its meaning or goes. What they hold: docs/interfaces.md.
#: `result.json`; it stands for the whole run folder.
RESULT_SCHEMA = 5
#: `plan.json`.
PLAN_SCHEMA = 2
#: `tuned/*.json`.
TUNED_SCHEMA = 2
#: `front.json`.
FRONT_SCHEMA = 2
#: `status.json`.
STATUS_SCHEMA = 1
#: `trials.sqlite`.
TRIALS_SCHEMA = 2
#: `measurements.sqlite`.
CACHE_SCHEMA = 1
#: Every file of a bench folder.
BENCH_SCHEMA = 1
#: `shapley.json`.
SHAPLEY_SCHEMA = 1
#: `export.json`.
EXPORT_SCHEMA = 1
#: `model.json` of a bundle.
BUNDLE_SCHEMA = 1
#: `deploy.json` of a release on a device.
DEPLOY_SCHEMA = 1
#: What `runs list --json` prints.
RUNS_SCHEMA = 1
#: What `inspect --json` prints.
INSPECT_SCHEMA = 1
#: What `profile --json` and `validate --json` print.
PROFILE_SCHEMA = 1
VALIDATE_SCHEMA = 1
#: What `compare --json` prints.
COMPARE_SCHEMA = 1
#: A gate file, which the user writes.
GATE_SCHEMA = 1


def check_schema(path: Path | str, found: Any, reads: int, hint: str) -> None:
    """Raises UsageError where `path` carries another schema than this version reads, StorageError where none."""
    if type(found) is not int:
        raise StorageError(f"{path} is damaged: expected schema {reads}, got {found!r:.40}", hint)
    if found != reads:
        whose = "a newer" if found > reads else "an older"
        raise UsageError(f"{path} was written by {whose} edgeprune (schema {found}, this version reads {reads})", hint)


def read_stamped(source: Source, reads: int, hint: str) -> dict[str, Any]:
    """The JSON object of a file of ours, of the schema that this version `reads`.

    The schema comes first: what another version wrote need not have our fields, and is not damaged for that. Raises as
    `check_schema`, and the source's error for what is no JSON object.
    """
    plain = source.read_json(dict[str, Any])
    check_schema(source.name, plain.get("schema"), reads, hint)
    return plain


def read_record(source: Source, kind: type[T], reads: int, hint: str) -> T:
    """A file of ours as the record that it is. Raises as `read_stamped`, and the source's error for other fields."""
    return source.shaped(read_stamped(source, reads, hint), kind)


def open_database(
    path: Path, schema: int, tables: str, *, hint: str, unstamped: Collection[str] = (), wait_s: float = 60.0
) -> sqlite3.Connection:
    """Open a SQLite file of ours, or make it with `tables` (SQL); `PRAGMA user_version` holds its schema.

    A file without a stamp is stamped where it is empty, or holds no table but `unstamped` ones, which earlier versions
    made. Each statement is a transaction of its own, and waits `wait_s` seconds for other processes at most.

    Raises UsageError for a file of another schema, StorageError for another program's, sqlite3.Error for a damaged one.
    """
    base = sqlite3.connect(path, timeout=wait_s, isolation_level=None)
    try:
        found = int(base.execute("PRAGMA user_version").fetchone()[0])
        if found == 0:
            # In one transaction: neither a kill nor another process that opens it may see tables without a stamp.
            base.execute("BEGIN IMMEDIATE")
            found = int(base.execute("PRAGMA user_version").fetchone()[0])
            there = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if found == 0 and there <= set(unstamped):
                for statement in filter(str.strip, tables.split(";")):
                    base.execute(statement)
                base.execute(f"PRAGMA user_version = {schema}")
                found = schema
            base.execute("COMMIT")
        if found == 0:
            raise StorageError(f"{path} is not a file of edgeprune: it has no schema, and tables of others", hint)
        check_schema(path, found, schema, hint)
    except BaseException:
        base.close()
        raise
    return base


def read_database(path: Path, schema: int, *, hint: str, wait_s: float = 5.0) -> sqlite3.Connection:
    """Open a SQLite file of ours to read it, also where another process writes it; nothing is made or changed.

    Raises UsageError for a file of another schema, StorageError for another program's, sqlite3.Error for a damaged or
    missing one.
    """
    base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=wait_s, isolation_level=None)
    try:
        found = int(base.execute("PRAGMA user_version").fetchone()[0])
        if found == 0:
            raise StorageError(f"{path} is not a file of edgeprune: it has no schema", hint)
        check_schema(path, found, schema, hint)
    except BaseException:
        base.close()
        raise
    return base

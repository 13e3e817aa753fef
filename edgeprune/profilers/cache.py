"""Measurements kept from run to run, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune.core.errors import StorageError
from edgeprune.core.files import storing
from edgeprune.core.measurement import Measurement
from edgeprune.core.plain import to_json
from edgeprune.core.reading import Source
from edgeprune.core.schema import CACHE_SCHEMA, open_database

#: The number rises when Measurement changes: rows of an older one are not looked at.
_TABLE = "measurements_1"
_WAIT_S = 60.0


class MeasurementCache:
    """Key -> Measurement. Several runs may share the file. A context manager.

    The caller makes the key of all that the figure depends on: widths or file hashes, runtime facts, settings.

    What is kept here can be measured again, so damage never ends a run: a damaged file is set aside under another name
    and made anew, a damaged entry counts as missing, and `say` is told of both.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Open or make the file.

        Raises UsageError for a file of another schema, StorageError when it is another program's, locked for long, or
        not writable.
        """
        self._path = path
        self._say = say
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._clear_errors():
            self._base = self._connect()

    def get(self, key: str) -> Measurement | None:
        """The measurement kept under `key`; None where there is none, or a damaged one. Raises StorageError."""
        row = self._execute(f"SELECT data FROM {_TABLE} WHERE key = ?", key)
        if row is None:
            return None
        try:
            name = f"an entry of the measurement cache {self._path}"
            return Source(name, StorageError, "the cost is measured again").parse_json(row[0], Measurement)
        except StorageError as error:
            self._say(str(error))
            return None

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement, in place of an older one. Raises StorageError."""
        data = json.dumps(to_json(measurement), allow_nan=False)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._execute(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?)", key, now, data)

    def _execute(self, statement: str, *values: str) -> tuple[Any, ...] | None:
        """The first row; where the file turns out to be damaged, of the one that is made in its place."""
        with self._clear_errors():
            try:
                return self._first(statement, values)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._base.close()
                self._set_aside(error)
                self._base = self._connect()
                return self._first(statement, values)

    def _first(self, statement: str, values: tuple[str, ...]) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._base.execute(statement, values).fetchone()
        return row

    def _connect(self) -> sqlite3.Connection:
        for again in (True, False):
            base = None
            try:
                base = open_database(
                    self._path,
                    CACHE_SCHEMA,
                    f"CREATE TABLE IF NOT EXISTS {_TABLE} (key TEXT PRIMARY KEY, at TEXT, data TEXT)",
                    hint="move that file away, and costs are measured anew; or give another --runs-dir",
                    unstamped=(_TABLE,),
                    wait_s=_WAIT_S,
                )
                base.execute(f"SELECT key, at, data FROM {_TABLE} LIMIT 1").fetchone()
            except sqlite3.DatabaseError as error:
                if base is not None:
                    base.close()
                if not (again and _is_damage(error)):
                    raise
                self._set_aside(error)
            else:
                return base
        raise AssertionError("the second attempt returns or raises")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        with storing(self._path):
            self._path.replace(aside)
            # What SQLite kept beside the old file must not be applied to the new one.
            for suffix in ("-journal", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._say(
            f"the measurement cache {self._path} is damaged ({error}): it is kept as {aside.name}, and costs are "
            "measured again"
        )

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> MeasurementCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"cannot use the measurement cache {self._path}: {error}",
                "wait for other runs that use it, free some disk space, or delete the file",
            ) from error
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"the measurement cache {self._path} is damaged: {error}", "delete the file; it will be made anew"
            ) from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is to blame, not a lock, a full disk or a missing permission."""
    # Tables of another shape, and text that is not UTF-8, are told as operational errors.
    foreign = (
        "no such column",
        "no such table",
        "no column named",
        "has no column",
        "values for",
        "Could not decode",
        "malformed",
    )
    return not isinstance(error, sqlite3.OperationalError) or any(part in str(error) for part in foreign)

"""Measurements kept from run to run, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from edgeprune.core.errors import StorageError
from edgeprune.core.files import storing
from edgeprune.core.schema import open_database
from edgeprune.core.types import Measurement, from_json, to_json

#: `PRAGMA user_version` of the file. It rises when the tables change.
CACHE_SCHEMA = 1
#: The number rises when Measurement changes: rows of an older one are not looked at.
_TABLE = "measurements_1"
_WAIT_S = 60.0


class MeasurementCache:
    """Key -> Measurement. Several runs may share the file. A context manager.

    The caller makes the key of all that the figure depends on: widths or file hashes, runtime facts, settings.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises UsageError for a file of another schema, StorageError when it is no SQLite file, locked for long, or not
        writable.
        """
        self._path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._clear_errors():
            self._base = open_database(
                path,
                CACHE_SCHEMA,
                f"CREATE TABLE IF NOT EXISTS {_TABLE} (key TEXT PRIMARY KEY, at TEXT, data TEXT)",
                hint="move that file away, and costs are measured anew; or give another --runs-dir",
                unstamped=(_TABLE,),
                wait_s=_WAIT_S,
            )

    def get(self, key: str) -> Measurement | None:
        """The measurement kept under `key`; None where there is none, or one this version cannot read."""
        with self._clear_errors():
            row = self._base.execute(f"SELECT data FROM {_TABLE} WHERE key = ?", (key,)).fetchone()
        try:
            return None if row is None else from_json(Measurement, json.loads(row[0]))
        except (ValueError, ValidationError, RecursionError):
            return None

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement, in place of an older one. Raises StorageError."""
        data = json.dumps(to_json(measurement), allow_nan=False)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._clear_errors():
            self._base.execute(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?)", (key, now, data))

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

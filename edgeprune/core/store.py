"""The run folder and its trials: everything a run leaves behind, written as it happens.

runs/NAME/
├── result.json        the outcome; written at every end, good or bad
├── .lock, .owner      who writes here now (see `core.lock`)
├── status.json        where it is while it goes on, for whoever watches
├── config.json        the settings, so that the run can be resumed
├── trials.sqlite      every trial and every evaluation (documented in docs/interfaces.md)
├── tuned/             finalists and winners, so that nothing is tuned twice (see `pipeline.tuned`)
├── plan.json, pruned.safetensors, baseline.safetensors
├── model.onnx, model.tflite, baseline.onnx, baseline.tflite
└── run.log
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.files import is_temporary, storing, sweep_temporary, write_json
from edgeprune.core.lock import LOCK, OWNER, FolderLock
from edgeprune.core.measurement import Failure, Measurement
from edgeprune.core.plain import to_json
from edgeprune.core.reading import Source, short
from edgeprune.core.runtimes import Precision
from edgeprune.core.schema import RESULT_SCHEMA, TRIALS_SCHEMA, open_database, read_database, read_stamped
from edgeprune.core.trial import Candidate, Trial

T = TypeVar("T")


_TABLES = """
CREATE TABLE trials (
  trial INTEGER PRIMARY KEY, widths TEXT NOT NULL, plan TEXT NOT NULL, accuracy REAL NOT NULL, ncr REAL NOT NULL,
  latency_share REAL, memory_share REAL, bytes INTEGER NOT NULL, reward REAL NOT NULL, seconds REAL NOT NULL,
  failure TEXT, proposed TEXT NOT NULL, executed TEXT NOT NULL, cost TEXT NOT NULL, precision TEXT NOT NULL);
CREATE TABLE evaluations (plan_key TEXT PRIMARY KEY, accuracy REAL NOT NULL, ncr REAL NOT NULL);
"""

#: Where a run is, for whoever watches it.
STATUS = "status.json"
#: What `--runtime auto` and `--threads auto` chose, so that a run that goes on measures as it did.
BACKENDS = "backends.json"
#: Folder of the files that candidates are measured as, while a search goes on.
CANDIDATES = "candidates"
#: What a damaged run needs; a run cannot be continued on figures that are not its own.
START_ANEW = "the run is damaged: start a new one"

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Rate = Annotated[float, Field(ge=1, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class _Evaluation:
    accuracy: _Share
    ncr: _Rate


@dataclass(frozen=True, slots=True)
class _Row:
    """The columns of a trial that are figures; what is asked of them when they come back from the file."""

    trial: Annotated[int, Field(ge=0)]
    accuracy: _Share
    ncr: _Rate
    bytes: Annotated[int, Field(ge=0)]
    reward: Annotated[float, Field(allow_inf_nan=False)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    precision: Precision


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunFolder:
    """One run's folder. Raises UsageError for a name that is taken or none, StorageError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = time.monotonic()

    @classmethod
    def create(cls, runs: Path, name: str | None, stem: str) -> RunFolder:
        """A fresh folder: `name`, or `stem` with the first free number.

        One that a killed run left before it kept its settings is as good as fresh; `own` tells whether that one lives.
        """
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(f"--name '{name}' is not a folder name", "use letters, digits, '.', '_' and '-'")
        if name is not None and (runs / name).exists():
            if not hardly_begun(runs / name):
                raise _taken(runs / name, name)
            return cls(runs / name)
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:80] or "run"
        number = 0
        while True:
            number += 1
            path = runs / (name or (stem if number == 1 else f"{stem}-{number}"))
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if name is not None and path.is_dir():
                    raise _taken(path, name) from None  # another process was quicker
                if name is not None or not runs.is_dir():
                    raise StorageError(
                        f"cannot make run folder {path}: a file is in the way", "choose another --runs-dir"
                    ) from None
                continue
            except OSError as error:
                raise StorageError(
                    f"cannot make run folder {path}: {error.strerror}", "choose another --runs-dir"
                ) from error
            return cls(path)

    @classmethod
    def existing(cls, runs: Path, name: str) -> RunFolder:
        """The folder of an earlier run, to resume. Raises UsageError for one of another version."""
        path = runs / name
        if not (path / "config.json").is_file():
            known = sorted(p.parent.name for p in runs.glob("*/config.json"))
            hint = f"known runs: {', '.join(known[-5:])}" if known else f"there are no runs in {runs}"
            raise UsageError(f"no run '{name}' in {runs}", hint)
        folder = cls(path)
        if (path / "result.json").exists():
            # It stands for the whole folder: settings and trials of another version would be misread.
            hint = "start a new run, or continue this one with the version that began it"
            read_stamped(folder.source("result.json"), RESULT_SCHEMA, hint)
        return folder

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def source(self, name: str) -> Source:
        """A file of the folder, to be read: its faults are StorageErrors."""
        return Source(self.path / name, StorageError, START_ANEW)

    def read_json(self, name: str, kind: type[T]) -> T:
        """A JSON file of the folder as a value of type `kind`. Raises StorageError where it is missing or damaged."""
        return self.source(name).read_json(kind)

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        write_json(self.path / name, data)

    def own(self) -> FolderLock:
        """Take the folder for this process alone, see `FolderLock`."""
        return FolderLock(self.path, f"run '{self.path.name}'")

    def sweep(self) -> list[str]:
        """Remove what an owner that was killed left half done; the names. Only for who owns the folder."""
        candidates = [CANDIDATES] if (self.path / CANDIDATES).exists() else []
        shutil.rmtree(self.path / CANDIDATES, ignore_errors=True)
        return sorted([*candidates, *sweep_temporary(self.path)])

    def discard(self) -> None:
        """Remove the folder of a run that was refused before it made anything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def log(self, line: str) -> None:
        """One line, with the seconds since the start, to run.log."""
        with storing(self.path), (self.path / "run.log").open("a", encoding="utf-8") as stream:
            stream.write(f"{time.monotonic() - self._started:9.1f} s  {line}\n")


def hardly_begun(path: Path) -> bool:
    """Whether a run was killed, or is only now, before it kept its settings: nothing is there to be resumed or lost."""
    known = {LOCK, OWNER, STATUS, "result.json", "run.log"}
    return (path / LOCK).is_file() and all(each.name in known or is_temporary(each) for each in path.iterdir())


def _taken(path: Path, name: str) -> UsageError:
    return UsageError(f"run folder {path} exists", f"choose another --name, or continue it with --resume {name}")


class TrialStore:
    """Trials and evaluations of one run in SQLite; each is on disk before the next begins.

    Raises UsageError for a file of another schema, StorageError where it is damaged, holds other tables, or cannot be
    written; so do all methods.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file; one that is `read_only` must exist, may be another process's, and takes nothing in."""
        self._path = path
        self._source = Source(path, StorageError, START_ANEW)
        existed = path.exists()
        try:
            if read_only:
                self._db = read_database(path, TRIALS_SCHEMA, hint="read it with the version that wrote it")
            else:
                self._db = open_database(path, TRIALS_SCHEMA, _TABLES, hint="start a new run")
        except sqlite3.Error as error:
            if existed and not isinstance(error, sqlite3.OperationalError):
                raise StorageError(f"cannot read {path}: {error}", START_ANEW) from error
            raise StorageError(
                f"cannot open {path}: {error}", "choose another --runs-dir, or start a new run"
            ) from error
        if existed:
            self._check_tables()

    @classmethod
    def check(cls, path: Path) -> None:
        """Read all that a resumed run will read of the file, before anything long. Raises StorageError."""
        if path.exists():
            with closing(cls(path)) as store:
                store.trials()
                for key, accuracy, ncr in store._rows("SELECT plan_key, accuracy, ncr FROM evaluations"):
                    store._evaluation(key, accuracy, ncr)

    def _check_tables(self) -> None:
        """The pages hang together, and the tables are ours."""
        with closing(sqlite3.connect(":memory:")) as ours, self._source.guarded():
            ours.executescript(_TABLES)
            whole = self._db.execute("PRAGMA quick_check(1)").fetchone()
            wanted, found = (
                [base.execute(f"PRAGMA table_info({table})").fetchall() for table in ("trials", "evaluations")]
                for base in (ours, self._db)
            )
        if whole != ("ok",):
            raise self._source.refusal("its pages do not hang together")
        if found != wanted:
            raise self._source.refusal("its tables have other columns than this version writes")

    def add(self, trial: Trial) -> None:
        """Append a trial; one of the same index (from before a resume) is replaced."""
        cost = trial.candidate.cost
        measured = isinstance(cost, Measurement)
        row = (
            trial.index,
            json.dumps(trial.candidate.plan.widths),
            json.dumps(to_json(trial.candidate.plan)),
            trial.candidate.accuracy,
            trial.candidate.ncr,
            cost.quotient if isinstance(cost, Measurement) else None,
            cost.memory_quotient if isinstance(cost, Measurement) else None,
            trial.candidate.bytes,
            trial.reward,
            trial.seconds,
            None if measured else json.dumps(to_json(cost)),
            json.dumps(trial.proposed),
            json.dumps(trial.executed),
            json.dumps(to_json(cost)),
            trial.candidate.precision,
        )
        self._write(f"INSERT OR REPLACE INTO trials VALUES ({','.join('?' * len(row))})", row)

    def trim(self, count: int) -> None:
        """Drop trials from index `count` on: of an earlier session that went further than its continuation."""
        self._write("DELETE FROM trials WHERE trial >= ?", (count,))

    def trials(self, first: int = 0) -> list[Trial]:
        """All trials in order, from index `first` on."""
        columns = "trial, accuracy, ncr, bytes, reward, seconds, precision, plan, cost, proposed, executed, failure"
        found = []
        for row in self._rows(f"SELECT {columns} FROM trials WHERE trial >= ? ORDER BY trial", first):
            *figures, plan, cost, proposed, executed, failure = row
            source = Source(f"trial {row[0]} in {self._path}", StorageError, START_ANEW)
            names = ("trial", "accuracy", "ncr", "bytes", "reward", "seconds", "precision")
            told = source.shaped(dict(zip(names, figures, strict=True)), _Row)
            kind: Any = Measurement if failure is None else Failure
            found.append(
                Trial(
                    told.trial,
                    Candidate(
                        source.parse_json(plan, PruningPlan),
                        told.accuracy,
                        told.ncr,
                        source.parse_json(cost, kind),
                        told.bytes,
                        told.precision,
                    ),
                    told.reward,
                    told.seconds,
                    source.parse_json(proposed, tuple[_Share, ...]),
                    source.parse_json(executed, tuple[_Share, ...]),
                )
            )
        return found

    def count(self) -> int:
        """How many trials there are."""
        return int(self._rows("SELECT count(*) FROM trials")[0][0])

    def remember(self, plan_key: str, accuracy: float, ncr: float) -> None:
        """Keep the accuracy of a plan, so that a resumed run need not find it again."""
        self._write("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)", (plan_key, accuracy, ncr))

    def recall(self, plan_key: str) -> tuple[float, float] | None:
        """(accuracy, ncr) of a plan that was evaluated before."""
        rows = self._rows("SELECT accuracy, ncr FROM evaluations WHERE plan_key = ?", plan_key)
        return self._evaluation(plan_key, *rows[0]) if rows else None

    def _evaluation(self, plan_key: Any, accuracy: Any, ncr: Any) -> tuple[float, float]:
        source = Source(f"evaluation {short(plan_key)} in {self._path}", StorageError, START_ANEW)
        found = source.shaped({"accuracy": accuracy, "ncr": ncr}, _Evaluation)
        return found.accuracy, found.ncr

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._source.guarded():
            return self._db.execute(query, values).fetchall()

    def _write(self, statement: str, row: tuple[Any, ...]) -> None:
        try:
            self._db.execute(statement, row)
        except sqlite3.Error as error:
            raise StorageError(
                f"cannot write {self._path}: {error}", "free some disk space, then continue with --resume"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

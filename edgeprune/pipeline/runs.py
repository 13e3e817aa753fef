"""The runs in a folder: how each stands and what came of it; one of them by its name. No torch."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast, get_args

from edgeprune.core.errors import EdgepruneError, StorageError, UsageError
from edgeprune.core.files import storing
from edgeprune.core.lock import LOCK, holder
from edgeprune.core.schema import RESULT_SCHEMA, check_schema
from edgeprune.core.store import RunFolder, hardly_begun
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.records.listed import Listed, Outcome, State
from edgeprune.pipeline.records.result import Ended, Status
from edgeprune.pipeline.stored import finished, finished_front

#: How a run may stand whose result.json can be read, but for those that end with an outcome.
_UNFINISHED = tuple(status for status in get_args(Status) if status not in get_args(Ended))

#: 2100-01-01, in seconds since 1970.
_LATEST = 4102444800.0


def list_runs(runs: Path) -> list[Listed]:
    """Every run of a folder, the newest first; none where the folder is missing.

    A run that cannot be read is one of them, and says why. Raises StorageError where the folder cannot be read.
    """
    try:
        folders = [each for each in runs.iterdir() if not each.name.startswith(".")] if runs.exists() else []
    except OSError as error:
        raise StorageError(f"cannot read {runs}: {error.strerror}", "choose another --runs-dir") from error
    found = [run for each in folders if (run := _listed(each)) is not None]
    return sorted(found, key=lambda run: (run.when, run.name), reverse=True)


def names_of_runs(runs: Path) -> list[str]:
    """The names of a folder's runs, in order; none where it is missing or cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in runs.iterdir() if not each.name.startswith(".") and _is_run(each))
    return []


def find_run(runs: Path, name: str) -> Path:
    """The folder of the run `name` in `runs`, or at the path `name`. Raises UsageError where there is none."""
    for folder in (runs / name, *([Path(name)] if os.sep in name else [])):
        try:
            if folder.name not in ("", "..") and _is_run(folder):
                return folder
        except OSError as error:
            raise StorageError(f"cannot read {folder}: {error.strerror}", "check who may read it") from error
    known = names_of_runs(runs)
    hint = f"runs that are there: {', '.join(known[-5:])}" if known else f"there are no runs in {runs}"
    raise UsageError(f"no run '{name:.100}' in {runs}", hint)


def stand(folder: Path) -> Listed:
    """How the run in a folder stands."""
    owner, when = holder(folder), _when(folder)
    told = _Told(folder)
    common: dict[str, Any] = {
        "name": folder.name,
        "when": when,
        "stage": told.text("stage"),
        "owner": owner,
        **{name: told.setting(name) for name in ("model", "data", "device")},
    }
    if owner:
        return Listed(state="running", **common)
    if told.fault is not None:
        other = isinstance(told.fault, UsageError)
        return Listed(state="other version" if other else "damaged", why=told.fault.message, **common)
    status = told.text("status")
    if status in get_args(Ended):
        try:
            return _finished(folder, cast(State, status), common)
        except EdgepruneError as error:
            return Listed(state="damaged", why=error.message, **common)
    if status in _UNFINISHED and status != "running":
        lines = told.text("error").strip().splitlines()
        # Of a traceback the last line says what went wrong.
        return Listed(state=cast(State, status), why=lines[-1] if lines else "", **common)
    return Listed(state="killed", why="the process that ran it is gone", **common)


def resume_command(folder: Path) -> str:
    """What to type to continue a run."""
    where = "" if folder.parent == RunConfig().runs_dir else f" --runs-dir {shlex.quote(str(folder.parent))}"
    return f"edgeprune run --resume {shlex.quote(folder.name)}{where}"


def remove_run(folder: Path) -> None:
    """Remove a run's folder with all that is in it.

    Raises UsageError where a process runs it, or it is no run's folder; StorageError where it cannot be removed.
    """
    if folder.is_symlink() or not _is_run(folder):
        raise UsageError(f"{folder} is not a run's folder", "remove it by hand, if that is meant")
    with contextlib.closing(RunFolder(folder).own()), storing(folder, elsewhere="check who may write there"):
        shutil.rmtree(folder)


class _Told:
    """What result.json and config.json say, as far as they can be read."""

    def __init__(self, folder: Path) -> None:
        self._result: Mapping[str, Any] = {}
        self._config: Mapping[str, Any] = {}
        #: Why the run cannot be read; None where it can.
        self.fault: EdgepruneError | None = None
        source = RunFolder(folder)
        try:
            if (folder / "result.json").exists():
                self._result = source.read_json("result.json", dict[str, Any])
                check_schema(folder / "result.json", self._result.get("schema"), RESULT_SCHEMA, "")
        except EdgepruneError as error:
            self.fault = error
        try:
            if isinstance(config := self._result.get("config"), dict):
                self._config = config
            elif (folder / "config.json").exists():
                self._config = source.read_json("config.json", dict[str, Any])
        except EdgepruneError as error:
            self.fault = self.fault or error

    def text(self, name: str) -> str:
        """A field of result.json; "" where it has none, or no text there."""
        value = self._result.get(name)
        return value if isinstance(value, str) else ""

    def setting(self, name: str) -> str:
        """A setting; "" where it is not known."""
        value = self._config.get(name)
        return value if isinstance(value, str) else ""


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it holds a run's settings, or only what one has that has just begun.

    Raises OSError where it may not be looked into.
    """
    if not folder.is_dir():
        return False
    if not (folder / "config.json").exists():
        return hardly_begun(folder)
    try:
        return {"data", "model", "seed"} <= RunFolder(folder).read_json("config.json", dict[str, Any]).keys()
    except EdgepruneError:  # it is damaged: what lies beside it tells whose it is
        return (folder / LOCK).is_file() or (folder / "run.log").is_file()


def _listed(folder: Path) -> Listed | None:
    """The run in a folder; None where there is none."""
    try:
        return stand(folder) if _is_run(folder) else None
    except OSError as error:
        why = f"cannot look into {folder}: {error.strerror}"
        return Listed(name=folder.name, state="damaged", when=_when(folder), why=why)


def _when(folder: Path) -> str:
    seconds = 0.0
    for path in (folder / "result.json", folder / "config.json", folder):
        try:
            seconds = path.stat().st_mtime
            break
        except OSError:
            continue
    # A file may claim any time, and a date has four digits for its year.
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST)).astimezone().isoformat("T", "seconds")


def _finished(folder: Path, status: State, common: dict[str, Any]) -> Listed:
    """A run that got to its end. Raises as `stored.finished`."""
    run = RunFolder(folder)
    if (front := finished_front(run)) is not None:
        outcomes = tuple(
            Outcome(bound=point["asked"], answer=point["answer"])
            if point["path"] is None
            else Outcome(
                bound=point["asked"],
                answer=point["answer"],
                file=point["file"],
                latency_share=point["latency_share"]["value"],
                quality=point["quality"]["value"],
            )
            for point in front["points"]
        )
        return Listed(state=status, metric=front["metric"], outcomes=outcomes, **common)
    result = finished(run)
    assert result is not None
    file = next(each for each in result["artifacts"] if each["path"] == result["budget"]["artifact"])
    # As a front tells it: of other precisions the file answers otherwise than the network on the host does.
    scores = result["compressed"]["scores"] if file["precision"] == "fp32" else file["device_scores"]
    outcome = Outcome(
        answer=result["budget"]["answer"],
        file=file["path"],
        latency_share=1 / file["speedup"]["value"],
        quality=scores[result["metric"]],
    )
    return Listed(state=status, metric=result["metric"], outcomes=(outcome,), **common)
